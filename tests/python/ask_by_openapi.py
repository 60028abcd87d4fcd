"""Asks a node with the client that openapi-python-client has made of its document.

Arguments: the directory of the client, the URL of the node.
"""

import importlib
import io
import pkgutil
import sys

sys.path.insert(0, sys.argv[1])
import tidegate_client

modules = [module.name for module in pkgutil.walk_packages(tidegate_client.__path__, "tidegate_client.")]
for module in modules:
    importlib.import_module(module)
assert len(modules) > 50, modules

from tidegate_client import Client
from tidegate_client.api.checks import auth_get, check, check_batch, check_by_query, refund, reset
from tidegate_client.api.cluster import cluster, drain, healthz, index, metrics, openapi, readyz
from tidegate_client.api.rules import put_rules, roll_back_rules, rules, rules_history, rules_of_domain
from tidegate_client.models import (
    Attributes,
    CheckBatchBody,
    CheckByLimit,
    CheckByQueryAttributes,
    CheckByRules,
    Problem,
    RollBackRulesBody,
    RuleFile,
)
from tidegate_client.types import File

client = Client(base_url=sys.argv[2])


def answered(call, status, **arguments):
    response = call.sync_detailed(client=client, **arguments)
    assert response.status_code == status, (call.__name__, response)
    return response.parsed


# Rules, as JSON and as a YAML file.
file = RuleFile.from_dict({"rules": [{"name": "per-ip", "key": ["ip"], "limit": "2/1h", "ip_prefix": {"v4": 24}}]})
first = answered(put_rules, 200, domain="made", body=file, author="ada", message="as JSON")
yaml = File(payload=io.BytesIO(b"rules:\n  - { name: per-ip, key: [ip], limit: 3/1h }\n"))
assert answered(put_rules, 200, domain="made", body=yaml).changed
assert answered(roll_back_rules, 200, domain="made", body=RollBackRulesBody(revision=first.revision)).changed
seen = answered(rules_of_domain, 200, domain="made")
assert (seen.rules[0].limit, seen.rules[0].ip_prefix.v4) == ("2/1h", 24), seen
assert [domain.domain for domain in answered(rules, 200).domains] == ["default", "made"]
assert len(answered(rules_history, 200, domain="made").revisions) == 3
wrong = answered(put_rules, 422, domain="made", body=RuleFile.from_dict({"rules": [{"name": "a"}]}))
assert wrong.type_ == "urn:tidegate:problem:invalid-rules", wrong

# Checks: domain and cost can be left out.
by_rules = CheckByRules(attributes=Attributes.from_dict({"ip": "203.0.113.7"}), domain="made")
assert answered(check, 200, body=by_rules).remaining == 1
again = answered(check_by_query, 200, attributes=CheckByQueryAttributes.from_dict({"ip": "203.0.113.9:80"}), domain="made")
assert (again.rule, again.remaining) == ("per-ip", 0), again
assert answered(check, 429, body=by_rules).retry_after_ms > 0
assert answered(check, 200, body=CheckByRules(attributes=Attributes.from_dict({"user": "ada"}))).limit is None
own = CheckByLimit(key="user-42", limit="100/1m", cost=10)
both = answered(check_batch, 200, body=CheckBatchBody(checks=[own, by_rules, CheckByLimit(key="a", limit="often")]))
assert [getattr(answer, "allowed", None) for answer in both.answers] == [True, False, None], both
assert isinstance(both.answers[2], Problem)
assert answered(refund, 200, body=by_rules).buckets[0].remaining == 1
assert answered(reset, 200, body=by_rules, rule="per-ip").buckets[0].remaining == 2
unknown = answered(reset, 404, body=by_rules, rule="per-user")
assert "per-ip" in unknown.detail, unknown
assert answered(check, 400, body=CheckByRules(attributes=Attributes.from_dict({"ip": "unknown"}))).field == "attributes.ip"
answered(auth_get, 200, x_forwarded_uri="/login")

# The node.
assert answered(cluster, 200).members[0].name == "n1"
assert answered(drain, 404, node="nobody").status == 404
assert answered(healthz, 200).alive and answered(readyz, 200).ready
assert answered(index, 200).name == "tidegate"
assert answered(openapi, 200)["openapi"] == "3.1.0"
assert "tidegate_checks_total" in answered(metrics, 200)
print("fine")
