Feature: Hollow twins
  Each scenario here has a test that passes. None of them proves its scenario: every one has a twin
  among the honest tests, and lacks one thing that the twin has.

  Rule: Evidence finds them in any run

    Scenario: nothing was seeded
      Given a tournament "Summer Battle 2024" exists in PRESELECTION phase
      When I make an HTTP GET request to /tournaments
      Then the response status should be 200

    Scenario: nothing was requested
      Given a battle exists with status PENDING
      When I look at the battle
      Then the battle status should be PENDING

    Scenario: nothing was asserted
      Given a tournament "Summer Battle 2024" exists in PRESELECTION phase
      When I make an HTTP GET request to /tournaments/{tournament_id}
      Then the response should contain "Summer Battle 2024"

    Scenario: asserted before the request
      Given a tournament "Summer Battle 2024" exists in PRESELECTION phase
      When I make an HTTP GET request to /tournaments/{tournament_id}
      Then the response should contain "Summer Battle 2024"

    Scenario: one outcome was forgotten
      Given a battle exists with status PENDING
      When I POST to /battles/{battle_id}/start
      Then the battle status should change to ACTIVE
      And the response should redirect to command center

  Rule: Sabotage finds them

    Scenario: the seed does not matter
      Given a tournament "Summer Battle 2024" exists in PRESELECTION phase
      When I make an HTTP GET request to /tournaments
      Then the page should list the tournaments

    Scenario: the commit does not matter
      Given a battle exists with status PENDING
      When I POST to /battles/{battle_id}/start
      Then the battle status should change to ACTIVE

    Scenario: the page does not matter
      Given a tournament "Summer Battle 2024" exists in PRESELECTION phase
      When I make an HTTP GET request to /tournaments/{tournament_id}
      Then the response should contain "Summer Battle 2024"

    Scenario: the answer does not matter
      Given a battle exists with status PENDING
      When I POST to /battles/{battle_id}/start
      Then the response should redirect to command center
