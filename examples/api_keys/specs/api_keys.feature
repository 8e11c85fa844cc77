Feature: API keys
  A service hands out keys, and their holders ask it for documents. Who has lost a key, or uses it
  too often, is told so.

  Background:
    Given the documents that every service starts with

  Rule: Keys are made and deleted by who may write them

    # What a request writes last is when a key was used, which another scenario is about.
    @survives-commit
    Scenario: New key is shown once
      Given a key that may read and write keys
      When it makes the key "dashboard" with POST /keys
      And the new key is used for GET /keys/me
      Then it is known as "dashboard"
      And GET /keys/{key_id} does not tell it again

    Scenario: Of two at once only one gets the name
      Given a key that may read and write keys
      When it sends POST /keys for the name "dashboard" twice at the same moment
      Then one is answered 201, and the other 409
      And there is one key of that name

    # As above.
    @survives-commit
    Scenario: Key without the scope is refused
      Given a key that may query, and nothing else
      When it sends POST /keys
      Then it is answered 403: "This key lacks the scope keys:write."

  Rule: A key that is not good opens nothing

    # A key that is not there is answered alike: nobody is to learn which prefixes there are.
    @survives-seed
    Scenario: Forged key is not known
      Given a key
      When its prefix is used for GET /keys/me, with a guess of the rest
      Then it is answered 401: "This key is not known."

    Scenario Outline: Key that is <state> is refused
      Given a key that is <state>
      When it is used for GET /keys/me
      Then it is answered 401: "<answer>"

      Examples:
        | state   | answer                 |
        | revoked | This key was revoked.  |
        | expired | This key has expired.  |

  Rule: What a key does is counted, and written down

    Scenario: Use of a key is written down
      Given a key that was never used
      When it is used for GET /keys/me
      Then its row tells when

    # As above: the limit does not count by what is written down.
    @survives-commit
    Scenario: Key that is used too often has to wait
      Given a key that was used as often as it may be
      When it is used for GET /keys/me
      Then it is answered 429, and told how long to wait
      And a key of somebody else is answered
