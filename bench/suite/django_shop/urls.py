"""The same requests as the other shop's."""

from __future__ import annotations

from typing import Any

from django.http import JsonResponse
from django.urls import path

from bench.suite.django_shop.models import Item


def items(request: Any) -> Any:
    """Make an item; or the newest ones."""
    if request.method == "POST":
        return _told(Item.objects.create(name=request.GET["name"], price=1), status=201)
    names = Item.objects.order_by("-id").values_list("name", flat=True)[:3]
    return JsonResponse(list(names), safe=False)


def one(_request: Any, number: int) -> Any:
    """One item."""
    return _told(Item.objects.get(pk=number))


def _told(item: Any, status: int = 200) -> Any:
    return JsonResponse({"id": item.pk, "name": item.name}, status=status)


urlpatterns = [path("items", items), path("items/<int:number>", one)]
