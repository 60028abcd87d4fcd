"""What a client of Gubernator sees. Arguments: the directory with the code made of the definitions, then the gRPC ports of
two nodes."""
import sys, time

sys.path.insert(0, sys.argv[1])
import grpc

from gubernator import gubernator_pb2 as pb
from gubernator.gubernator_pb2_grpc import V1Stub

stubs = [V1Stub(grpc.insecure_channel("127.0.0.1:" + port)) for port in sys.argv[2:4]]
HOUR = 3_600_000


def ask(*requests, node=0):
    return list(stubs[node].GetRateLimits(pb.GetRateLimitsReq(requests=requests), timeout=20).responses)


def request(key, **more):
    fields = dict(name="requests", unique_key=key, hits=1, limit=10, duration=HOUR) | more
    return pb.RateLimitReq(**fields)


def now():
    return int(time.time() * 1000)


# A token bucket is a window from the first hit, and one for both nodes.
before = now()
first = ask(request("account:1"))[0]
assert first.error == "" and (first.status, first.limit, first.remaining) == (0, 10, 9), first
assert before + HOUR <= first.reset_time <= now() + HOUR + HOUR // 1000, (before, first)
rest = [ask(request("account:1"), node=turn % 2)[0] for turn in range(12)]
assert [one.status for one in rest] == [0] * 9 + [1] * 3 and rest[-1].remaining == 0, rest
assert all(abs(one.reset_time - first.reset_time) <= 50 for one in rest), "the window stays where it began"

# It ends as a whole, and the next hit begins another one.
short = lambda **more: ask(request("short", duration=700, limit=3, **more))[0]
assert [short().status for _ in range(4)][:3] == [0, 0, 0]
deadline = time.time() + 20
while short(hits=0).status == 1:
    assert time.time() < deadline
    time.sleep(0.02)
again = short(hits=3)
assert (again.status, again.remaining) == (0, 0), again

# Looking takes nothing; a request beyond what is left takes nothing, unless it drains.
assert ask(request("k", hits=0))[0].remaining == 10
assert ask(request("k", hits=4))[0].remaining == 6
over = ask(request("k", hits=7))[0]
assert (over.status, over.remaining) == (1, 6), over
over = ask(request("k", hits=7, behavior=pb.DRAIN_OVER_LIMIT), node=1)[0]
assert (over.status, over.remaining) == (1, 0), over
assert ask(request("k"))[0].status == 1

# Negative hits give back, no more than was taken, and both nodes know of it. A reset fills up: a window without taking the
# hits, a leaky bucket before it takes them.
for kind, after_reset in ((pb.TOKEN_BUCKET, 10), (pb.LEAKY_BUCKET, 7)):
    back = lambda node=0, **more: ask(request("back:%d" % kind, algorithm=kind, **more), node=node)[0]
    assert back(hits=8).remaining == 2
    given = back(node=1, hits=-3)
    assert (given.error, given.status, given.limit, given.remaining) == ("", 0, 10, 5), given
    assert back(hits=5).remaining == 0 and back().status == 1
    given = back(hits=-1_000)
    assert (given.status, given.remaining) == (0, 10), given
    assert back(hits=10, node=1).remaining == 0
    reset = back(hits=3, node=1, behavior=pb.RESET_REMAINING)
    assert (reset.error, reset.status, reset.remaining) == ("", 0, after_reset), reset
    assert back(hits=0).remaining == after_reset

# A leaky bucket refills steadily: 10 in a second, a burst of 2.
leaky = lambda key, **more: ask(request(key, algorithm=pb.LEAKY_BUCKET, duration=1000, burst=2, **more))[0]
assert leaky("l", hits=2).status == 0
deadline = time.time() + 20
while leaky("l").status == 1:
    assert time.time() < deadline
    time.sleep(0.02)
assert ask(request("m", algorithm=pb.LEAKY_BUCKET))[0].remaining == 9, "the burst is the limit if none is given"
assert ask(request("n", algorithm=pb.LEAKY_BUCKET, burst=25))[0].remaining == 24

# Durations from 1 ms to ten years are kept, by both nodes.
YEAR = 365 * 24 * HOUR
for kind in (pb.TOKEN_BUCKET, pb.LEAKY_BUCKET):
    yearly = [ask(request("year:%d" % kind, limit=2, duration=YEAR, algorithm=kind), node=turn % 2)[0] for turn in range(3)]
    assert [one.status for one in yearly] == [0, 0, 1] and not any(one.error for one in yearly), yearly
    assert YEAR / 3 < yearly[2].reset_time - now() <= YEAR + YEAR // 500, yearly
    brief = lambda: ask(request("brief:%d" % kind, limit=1, duration=5, algorithm=kind))[0]
    assert (brief().error, brief().limit) == ("", 1)
    time.sleep(0.05)
    assert brief().status == 0
    assert "3650d" in ask(request("long", duration=2**62, algorithm=kind))[0].error

# Windows of the calendar.
day = ask(request("day", behavior=pb.DURATION_IS_GREGORIAN, duration=2))[0]
assert day.remaining == 9 and day.reset_time % 86_400_000 in (0, 1) and day.reset_time > now(), day
for duration, most in ((3, 7), (4, 31), (5, 366)):
    part = ask(request("part:%d" % duration, behavior=pb.DURATION_IS_GREGORIAN, duration=duration))[0]
    left = part.reset_time - now()
    assert part.remaining == 9 and part.reset_time % 86_400_000 in (0, 1) and 0 < left <= most * 86_400_000, part

# Behaviours that change nothing here, and a limit of nothing.
assert ask(request("g", behavior=pb.GLOBAL))[0].remaining == 9
assert ask(request("g", behavior=pb.NO_BATCHING), node=1)[0].remaining == 8
assert ask(request("z", limit=0))[0].status == 1

# Each of a batch by itself, in its order; what is wrong with one stands in its place.
batch = ask(request("a"), request(""), request("b", behavior=pb.MULTI_REGION), request("c", duration=0), request("d", name=""), request("e"))
assert [bool(one.error) for one in batch] == [False, True, True, True, True, False], batch
assert [one.status for one in batch] == [0, 1, 1, 1, 1, 0], "a client that reads only the status denies what nobody decided"
assert "limits nothing" in batch[3].error, batch[3]
assert batch[1].error == "field 'unique_key' cannot be empty" and "MULTI_REGION" in batch[2].error
assert batch[4].error == "field 'namespace' cannot be empty"
many = ask(*[request("many:%d" % number, limit=number + 1) for number in range(1000)])
assert [one.remaining for one in many] == list(range(1000)) and not any(one.error for one in many)
assert [one.remaining for one in ask(*[request("same")] * 12)] == list(range(9, -1, -1)) + [0, 0]
try:
    ask(*[request("x")] * 1001)
    raise SystemExit("no error")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.OUT_OF_RANGE and "max size is '1000'" in error.details(), error

# Many empty ones are not even read: they would take a hundred times their bytes.
empty = grpc.insecure_channel("127.0.0.1:" + sys.argv[2]).unary_unary("/pb.gubernator.V1/GetRateLimits", lambda x: x, lambda x: x)
for body, wanted in ((b"\x0a\x00" * 500_000, "max size"), (b"\x0a\x00" * 600_000, "too large")):
    try:
        empty(body, timeout=20)
        raise SystemExit("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.OUT_OF_RANGE and wanted in error.details(), error

health = stubs[0].HealthCheck(pb.HealthCheckReq(), timeout=20)
assert (health.status, health.message, health.peer_count) == ("healthy", "", 2), health
addresses = {"127.0.0.1:" + port for port in sys.argv[2:4]}
assert {peer.grpc_address for peer in health.local_peers} == addresses, health

# Who decided, where that is the other node.
owners = [ask(request("owner:%d" % number))[0].metadata.get("owner") for number in range(64)]
assert set(owners) == {None, "127.0.0.1:" + sys.argv[3]}, owners
assert health.advertise_address.endswith(":" + sys.argv[2])
stubs[0].LiveCheck(pb.LiveCheckReq(), timeout=20)
print("fine")
