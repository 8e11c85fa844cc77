Feature: Steps

  Scenario: Each Then is checked
    Given a battle is PENDING
    When I POST to /battles/{battle_id}/start
    Then the answer is ACTIVE
    And the battle is ACTIVE

  Scenario: Two of three check nothing
    Given a battle is PENDING
    When I POST to /battles/{battle_id}/start
    Then the answer is ACTIVE
    And the list has it
    But no judge is called

  Scenario: A Then checks an earlier answer
    Given a battle is PENDING
    When I POST to /battles/{battle_id}/start
    Then it is in the list

  Scenario: An error stops a Then
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list
    And it has a name

  Scenario: The blocks are nested
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list
    And it has a name

  Scenario: Its When checks the answer
    Given a battle is PENDING
    When I POST to /battles/{battle_id}/start
    And I GET /battles
    Then the battle is ACTIVE

  Scenario: One Then has two blocks
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list

  Scenario: It fails by a call
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list

  Scenario Outline: A row is a scenario
    Given a battle is <before>
    When I POST to /battles/{battle_id}/start
    Then the answer is <status>
    And the battle is ACTIVE

    Examples:
      | before  | status |
      | PENDING | 200    |
      | ACTIVE  | 409    |

  Scenario: A status alone
    Given a battle is PENDING
    When I GET /battles
    Then the battle is in the list

  Scenario: One of two tests proves
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list

  Scenario: One of two tests fails
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list

  Scenario: It is expected to fail and passes
    When I GET /battles
    Then the list is empty

  Scenario: It must fail and passes
    When I GET /battles
    Then the list is empty

  Scenario: The list is empty
    When I GET /battles
    Then no battle is in the list

  @no-seed
  Scenario: A refused request changes nothing
    Given Ann is no judge
    When I POST to /judges/Ann
    Then it is refused

  Scenario: A block is of another scenario
    Given a battle is PENDING
    When I GET /battles
    Then it is in the list
    And no judge is called
