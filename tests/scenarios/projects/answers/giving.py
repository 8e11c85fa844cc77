"""Functions of another file that get the test."""


def give_error(test):
    answer = test.http.get("/dancers")
    if answer.is_error:
        test.error = answer.text


def give_status(test):
    test.given_away = test.http.get("/dancers").status_code
