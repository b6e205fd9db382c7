from __future__ import annotations

import json

from shared.delivery.exchange import Reply, Request


def test_a_reply_is_json_of_its_content() -> None:
    reply = Reply.json(200, {"name": "Zoë"})

    assert (reply.status, json.loads(reply.body)) == (200, {"name": "Zoë"})
    assert reply.headers == {"content-type": "application/json"}


def test_a_reply_may_have_headers_and_another_media_type() -> None:
    reply = Reply.json(200, [], {"location": "/x", "content-type": "application/hal+json"})

    assert reply.headers == {"location": "/x", "content-type": "application/hal+json"}


def test_a_request_does_not_show_its_body() -> None:
    assert "Ada" not in repr(Request("https://app.example/api/businesses", {}, b'{"name": "Ada"}'))
