Feature: Dancers

  Scenario: Nobody is registered yet
    When I look at the list of dancers
    Then it is empty

  Scenario: A dancer is registered
    When I register "Ruby"
    Then the list of dancers contains "Ruby"
