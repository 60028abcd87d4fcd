"""Envoy's rate limit service from another language: with code made of the definitions, and with none, by reflection.

Arguments: the directory with the code, then the gRPC ports of two nodes, with the rules of docs/envoy.md.
"""
import sys

sys.path.insert(0, sys.argv[1])
import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub

OK, OVER = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
channels = [grpc.insecure_channel("127.0.0.1:" + port) for port in sys.argv[2:4]]
stubs = [RateLimitServiceStub(channel) for channel in channels]


def descriptor(*entries, **more):
    made = RateLimitDescriptor(**more)
    for key, value in entries:
        made.entries.add(key=key, value=value)
    return made


def ask(*descriptors, node=0, hits=0, domain="web"):
    request = RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits)
    return stubs[node].ShouldRateLimit(request, timeout=20)


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise SystemExit("there is no error")


# One limit, whichever node is asked.
address = descriptor(("remote_address", "203.0.113.7"))
answers = [ask(address, node=turn % 2) for turn in range(24)]
assert [answer.overall_code for answer in answers] == [OK] * 20 + [OVER] * 4
first = answers[0].statuses[0]
assert (first.current_limit.name, first.current_limit.requests_per_unit) == ("per-address", 20), first
assert (first.current_limit.unit, first.limit_remaining) == (RateLimitResponse.RateLimit.HOUR, 19), first
assert 0 < first.duration_until_reset.seconds <= 181 and first.duration_until_reset.nanos == 0, first
assert not answers[0].response_headers_to_add

# A rule matches a descriptor that has exactly its keys, in any order.
other = ("remote_address", "203.0.113.8")
for unmatched in [[other, ("tier", "x")], [("path", "/other"), other], [("path", "/login")], [("tier", "x")]]:
    answer = ask(descriptor(*unmatched))
    assert answer.overall_code == OK and not answer.statuses[0].HasField("current_limit"), unmatched
assert ask(descriptor(other, ("path", "/login"))).statuses[0].current_limit.name == "login"
assert ask(descriptor(("path", "/login"), other)).statuses[0].limit_remaining == 1

# Each descriptor is decided by itself; statuses are in their order; one over the limit is enough.
answer = ask(descriptor(other), address, descriptor(("tier", "x")), node=1)
assert answer.overall_code == OVER and [one.code for one in answer.statuses] == [OK, OVER, OK]
assert ask(descriptor(other), hits=0).statuses[0].limit_remaining == 18, "the one that was not over was charged"

# The cost: of the request, and before it of the descriptor, where 0 looks.
third = ("remote_address", "203.0.113.9")
assert ask(descriptor(third), hits=5).statuses[0].limit_remaining == 15
look = descriptor(third)
look.hits_addend.value = 0
assert ask(look, hits=5).statuses[0].limit_remaining == 15
look.hits_addend.value = 16
assert ask(look).overall_code == OVER
assert ask(descriptor(third)).statuses[0].limit_remaining == 14, "a denied one costs nothing"

# Negative hits give back, whichever node is asked, no more than was taken, and are OK; others of the request are charged.
back = descriptor(third, is_negative_hits=True)
answer = ask(back, descriptor(third), node=1, hits=4)
assert answer.overall_code == OK and len(answer.statuses) == 2, answer
assert ask(descriptor(third), hits=1, node=1).statuses[0].limit_remaining == 13
answer = ask(back, hits=1_000)
assert (answer.overall_code, answer.statuses[0].limit_remaining) == (OK, 20), answer
assert ask(descriptor(third), hits=6).statuses[0].limit_remaining == 14

# A limit that the descriptor brings.
limited = descriptor(("tenant", "a"))
limited.limit.requests_per_unit, limited.limit.unit = 2, 4
assert [ask(limited, node=turn % 2).overall_code for turn in range(3)] == [OK, OK, OVER]
limited.limit.requests_per_unit = 0
assert ask(limited).overall_code == OVER
limited.limit.unit, limited.limit.requests_per_unit = 6, 1
year = [ask(limited, node=turn % 2) for turn in range(2)]
assert [answer.overall_code for answer in year] == [OK, OVER], year
limited.limit.unit = 0
code, why = code_of(lambda: ask(limited))
assert code == grpc.StatusCode.INVALID_ARGUMENT and "descriptor 1" in why and "YEAR" in why, why

# What is wrong is told, and the connection goes on.
assert code_of(lambda: ask())[0] == grpc.StatusCode.INVALID_ARGUMENT
assert code_of(lambda: ask(*[address] * 129))[0] == grpc.StatusCode.INVALID_ARGUMENT
assert code_of(lambda: ask(descriptor(("k", "v" * 70_000))))[0] == grpc.StatusCode.OUT_OF_RANGE
compressed = lambda: stubs[0].ShouldRateLimit(
    RateLimitRequest(domain="web" * 50, descriptors=[address]), compression=grpc.Compression.Gzip, timeout=20)
assert code_of(compressed)[0] == grpc.StatusCode.UNIMPLEMENTED
for path in ("/no.Service/Call", "/envoy.service.ratelimit.v3.RateLimitService/Nothing"):
    call = channels[0].unary_unary(path, lambda x: x, lambda x: x)
    assert code_of(lambda: call(b"", timeout=20))[0] == grpc.StatusCode.UNIMPLEMENTED, path
broken = channels[0].unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", lambda x: x, lambda x: x)
assert code_of(lambda: broken(b"\xff\xff\xff", timeout=20))[0] in (
    grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
assert ask(descriptor(third)).overall_code == OK

# Many at the same time on one connection.
many = [stubs[0].ShouldRateLimit.future(
    RateLimitRequest(domain="web", descriptors=[descriptor(("remote_address", "10.0.%d.1" % turn))])) for turn in range(1000)]
assert all(call.result(timeout=60).overall_code == OK for call in many)

# Health.
health = health_pb2_grpc.HealthStub(channels[0])
for service in ("", "envoy.service.ratelimit.v3.RateLimitService", "pb.gubernator.V1"):
    assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == 1
assert code_of(lambda: health.Check(health_pb2.HealthCheckRequest(service="x"), timeout=20))[0] == grpc.StatusCode.NOT_FOUND
watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
assert next(iter(watch)).status == 1
watch.cancel()

# By reflection, with nothing known before.
database = ProtoReflectionDescriptorDatabase(channels[1])
services = set(database.get_services())
expected = {"envoy.service.ratelimit.v3.RateLimitService", "pb.gubernator.V1", "grpc.health.v1.Health"}
assert expected <= services, services
pool = descriptor_pool.DescriptorPool(database)
method = pool.FindServiceByName("envoy.service.ratelimit.v3.RateLimitService").FindMethodByName("ShouldRateLimit")
request_type, response_type = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
request = request_type(domain="web")
request.descriptors.add().entries.add(key="remote_address", value="198.51.100.1")
call = channels[1].unary_unary(
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", request_type.SerializeToString, response_type.FromString)
assert call(request, timeout=20).statuses[0].limit_remaining == 19
# The newer version of reflection, which this package has no client for: list_services (field 7).
v1 = channels[0].stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", lambda x: x, lambda x: x)
assert b"pb.gubernator.V1" in next(iter(v1(iter([b"\x3a\x00"]), timeout=20)))
print("fine")
