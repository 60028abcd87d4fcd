"""What clients of gRPC present, and what they may then ask. Arguments: the directory with the code made of the definitions, the
gRPC port of a node whose checks need a token, a token for checks of the domain shop, one that may only read, and the admin token."""
import sys

sys.path.insert(0, sys.argv[1])
import grpc

from envoy.service.ratelimit.v3 import rls_pb2
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from grpc import StatusCode as Code
from gubernator import gubernator_pb2 as pb
from gubernator.gubernator_pb2_grpc import V1Stub

port, shop, reader, admin = sys.argv[2:6]
channel = grpc.insecure_channel("127.0.0.1:" + port)
envoy, gubernator = RateLimitServiceStub(channel), V1Stub(channel)


def bearer(token):
    return [("authorization", "Bearer " + token)] if token else []


def code(call):
    try:
        call()
        return Code.OK
    except grpc.RpcError as error:
        return error.code()


def ask_envoy(token, domain="shop"):
    entry = ratelimit_pb2.RateLimitDescriptor.Entry(key="user", value="a")
    descriptor = ratelimit_pb2.RateLimitDescriptor(entries=[entry])
    request = rls_pb2.RateLimitRequest(domain=domain, descriptors=[descriptor])
    return code(lambda: envoy.ShouldRateLimit(request, timeout=20, metadata=bearer(token)))


def gubernators(token, name="shop", **more):
    request = pb.RateLimitReq(name=name, unique_key="a", hits=1, limit=10, duration=60_000, **more)
    batch = pb.GetRateLimitsReq(requests=[request])
    return gubernator.GetRateLimits(batch, timeout=20, metadata=bearer(token)).responses[0]


assert ask_envoy(None) == Code.UNAUTHENTICATED
assert ask_envoy("tg_0000000000000000_00") == Code.UNAUTHENTICATED
assert ask_envoy(reader) == Code.PERMISSION_DENIED
assert ask_envoy(shop) == Code.OK
assert ask_envoy(shop, domain="default") == Code.PERMISSION_DENIED
assert ask_envoy(admin, domain="default") == Code.OK

assert code(lambda: gubernators(None)) == Code.UNAUTHENTICATED
assert code(lambda: gubernators(reader)) == Code.PERMISSION_DENIED
assert gubernators(shop).error == ""
assert "domains" in gubernators(shop, name="default").error
assert "operate" in gubernators(shop, behavior=pb.RESET_REMAINING).error
assert gubernators(admin, behavior=pb.RESET_REMAINING).error == ""
health = lambda token: code(lambda: gubernator.HealthCheck(pb.HealthCheckReq(), timeout=20, metadata=bearer(token)))
assert (health(None), health(shop)) == (Code.UNAUTHENTICATED, Code.OK)
assert code(lambda: gubernator.LiveCheck(pb.LiveCheckReq(), timeout=20)) == Code.OK
print("fine")
