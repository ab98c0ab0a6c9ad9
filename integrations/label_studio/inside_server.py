"""Runs in the Label Studio environment, as a script: makes its tables and administrator, or gives a token.

It imports nothing of labelloop. One JSON object comes on stdin and one goes to stdout, so that a password or
a token passes through a pipe only: never a command line, an environment variable, a file or a log.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answers one request: ``{"do": "prepare", "email", "password"}`` or ``{"do": "token", "email"}``."""
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever Label Studio prints is not the answer
    request = json.load(sys.stdin)
    set_up_django()
    if request["do"] == "prepare":
        prepare(request["email"], request["password"])
        json.dump({}, answer)
    else:
        json.dump({"token": token_of(request["email"])}, answer)
    answer.close()


def set_up_django() -> None:
    """As Label Studio's own command does before it serves."""
    import django
    import label_studio

    sys.path.insert(0, str(Path(label_studio.__file__).parent))
    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio.core.settings.label_studio"
    django.setup()


def prepare(email: str, password: str) -> None:
    """Brings the tables up to date, and makes the administrator or gives it this password."""
    from django.core.management import call_command
    from django.db import transaction

    call_command("migrate", "--no-color", verbosity=0)
    from organizations.models import Organization
    from users.models import User

    with transaction.atomic():
        user = User.objects.filter(email=email).first() or User(email=email, username=email.split("@")[0])
        user.is_staff = user.is_superuser = True
        user.set_password(password)
        user.save()
        organization = Organization.objects.first()
        if organization is None:
            organization = Organization.create_organization(created_by=user, title="Label Studio")
        else:
            organization.add_user(user)
        user.active_organization = organization
        user.save(update_fields=["active_organization"])


def token_of(email: str) -> str:
    """The one valid access token of the account; made where there is none, or where it was revoked.

    Label Studio stores a token without its signature. That is added here again with the server's own key, so
    whoever asks twice has the same token, and no list of forgotten ones grows.
    """
    from django.utils import timezone
    from jwt_auth.models import LSAPIToken, TruncatedLSAPIToken
    from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
    from users.models import User

    # The administrator may have changed the address in the browser.
    user = User.objects.filter(email=email).first() or User.objects.filter(is_superuser=True).earliest("id")
    valid = OutstandingToken.objects.filter(
        user=user, expires_at__gt=timezone.now(), blacklistedtoken__isnull=True
    )
    stored: list[Any] = [TruncatedLSAPIToken(str(row.token)) for row in valid.order_by("id")]
    refreshing = [token for token in stored if token["token_type"] == "refresh"]
    token = refreshing[0] if refreshing else LSAPIToken.for_user(user)
    return str(token.get_full_jwt())


if __name__ == "__main__":
    main()
