Feature: Paths

  @no-seed
  Scenario Outline: A path is answered
    When I GET <path>
    Then the answer is <status>

    Examples:
      | path     | status |
      | /battles | 200    |
      | /nothing | 404    |
      | /others  | 404    |

  Rule: Some paths are open

  @no-seed
  Scenario Outline: <Path name> is open
    When I GET <Path name>
    Then the answer is good

    Examples:
      | Path name |
      | /battles  |
      | /judges   |
