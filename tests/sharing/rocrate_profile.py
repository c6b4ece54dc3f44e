"""What an RO-Crate lacks that the profile of workflow runs requires, found without a network."""

import json
from pathlib import Path

import requests
from rocrate.vocabs import RO_CRATE
from rocrate_validator.services import ValidationSettings, validate
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
# The library ships the context of version 1.3. In version 1.1 these four terms stand for other
# addresses.
TERMS = {
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
}


def issues(crate: Path, monkeypatch, cache: Path) -> list[str]:
    """Messages of the validator; it may ask for the JSON-LD context and for nothing else."""

    def get(_, url, **__):
        assert url == CONTEXT
        response = requests.Response()
        response.status_code, response.url = 200, url
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps({"@context": RO_CRATE["@context"] | TERMS}).encode()
        return response

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)
    settings = ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="workflow-run-crate-0.5",
        requirement_severity="REQUIRED",
        offline=True,
        cache_path=cache,
    )
    return [issue.message for issue in validate(settings).get_issues()]
