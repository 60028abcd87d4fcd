"""What envoyproxy/ratelimit's clients rely on: an empty domain is an error, a shadow rule has its numbers, and descriptors that are
charged together. Arguments: the directory with the code made of the definitions, then the gRPC ports of two nodes."""
import sys

sys.path.insert(0, sys.argv[1])
import grpc

from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub

OK, OVER = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
stubs = [RateLimitServiceStub(grpc.insecure_channel("127.0.0.1:" + port)) for port in sys.argv[2:4]]


def descriptor(**entries):
    made = RateLimitDescriptor()
    for key, value in entries.items():
        made.entries.add(key=key, value=value)
    return made


def ask(*descriptors, node=0, domain="together"):
    return stubs[node].ShouldRateLimit(RateLimitRequest(domain=domain, descriptors=descriptors), timeout=20)


def refused(*descriptors, domain):
    try:
        ask(*descriptors, domain=domain)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        return error.details()
    raise SystemExit("there is no error")


# A filter without a domain is a mistake that must not look like a yes.
assert refused(descriptor(client="a"), domain="").startswith("rate limit domain must not be empty")
assert refused(domain="together").startswith("rate limit descriptor list must not be empty")
assert ask(RateLimitDescriptor()).overall_code == OK

# Two limits of one request, charged together: six denials for svc1 leave the client's ten alone.
both = lambda client, svc: (descriptor(client=client, svc=svc), descriptor(client=client))
answers = [ask(*both("a", "svc1"), node=turn % 2) for turn in range(8)]
assert [answer.overall_code for answer in answers] == [OK, OK] + [OVER] * 6, answers
assert all([one.code for one in answer.statuses] == [OVER, OK] for answer in answers[2:]), answers[2]
left = ask(descriptor(client="a"), node=1).statuses[0].limit_remaining
assert left == 7, left
assert [ask(*both("a", "svc4"), node=turn % 2).overall_code for turn in range(3)] == [OK, OK, OVER]
assert ask(descriptor(client="a")).statuses[0].limit_remaining == 4

# One that brings a limit of nothing denies all of them.
nothing = descriptor(tenant="t")
nothing.limit.unit = 3
answer = ask(descriptor(client="b"), nothing)
assert answer.overall_code == OVER and [one.code for one in answer.statuses] == [OK, OVER], answer
assert ask(descriptor(client="b")).statuses[0].limit_remaining == 9

# One bucket three times: what was not taken is told as there, by each of them.
three = ask(*[descriptor(client="e", svc="s")] * 3)
assert three.overall_code == OVER, three
assert [one.limit_remaining for one in three.statuses] == [2, 2, 2], three

# In another domain each is charged by itself, as the reference does.
answers = [ask(*both("a", "svc1"), node=turn % 2, domain="apart") for turn in range(8)]
assert [answer.overall_code for answer in answers] == [OK, OK] + [OVER] * 6
assert ask(descriptor(client="a"), domain="apart").statuses[0].limit_remaining == 1

# A rule that only watches is OK, with its numbers.
watched = [ask(descriptor(watched="x"), node=turn % 2, domain="apart") for turn in range(3)]
assert [answer.overall_code for answer in watched] == [OK] * 3
for answer, remaining in zip(watched, (1, 0, 0)):
    status = answer.statuses[0]
    assert (status.code, status.limit_remaining) == (OK, remaining), status
    limit = status.current_limit
    assert (limit.name, limit.requests_per_unit, limit.unit) == ("watched", 2, RateLimitResponse.RateLimit.HOUR), limit

# What a client sleeps on is the time until there is more: a tenth of the hour.
first = ask(descriptor(slow="x"), domain="apart").statuses[0]
assert first.limit_remaining == 9 and first.duration_until_reset.seconds in (359, 360), first
second = ask(descriptor(slow="x"), domain="apart").statuses[0]
assert 300 <= second.duration_until_reset.seconds <= 360, second
print("fine")
