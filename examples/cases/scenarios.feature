Feature: Dancers

  Scenario: A dancer is registered
    When I register "Ruby"
    Then the list of dancers contains "Ruby"

  Scenario: A dancer withdraws
    When I withdraw "Ruby"
    Then the list of dancers does not contain "Ruby"
