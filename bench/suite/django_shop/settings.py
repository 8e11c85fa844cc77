"""As small as a project can be: nothing but the shop."""

from __future__ import annotations

from bench.suite.databases import url

_url = url()

SECRET_KEY = "sand"  # noqa: S105 - nothing here is secret
ROOT_URLCONF = "bench.suite.django_shop.urls"
INSTALLED_APPS = ["bench.suite.django_shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.database,
        "HOST": _url.query.get("host") or _url.host,
        "PORT": _url.port,
        "USER": _url.username,
        "PASSWORD": _url.password or "",
    }
}
