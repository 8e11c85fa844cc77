Feature: Crew

  Scenario: A dancer joins
    Given a dancer
    When another joins
    Then both are listed

  Scenario: Flask's own client reads
    Given a dancer
    When I get the list
    Then it has the dancer

  Scenario: A program reads over the network
    Given a dancer
    When I get the list
    Then it has the dancer

  Scenario: The row is written
    Given a dancer
    When another joins
    Then there are two
