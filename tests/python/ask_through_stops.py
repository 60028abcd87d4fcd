"""Clients of Envoy's rate limit service that keep their connections while nodes are restarted one after the other by plan.

Arguments: the directory with the code, then the gRPC ports of all nodes. Asks until its standard input ends, and says how many requests
were answered, and which errors there were.
"""
import collections
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])
import grpc

from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub

NODES = "ipv4:" + ",".join("127.0.0.1:" + port for port in sys.argv[2:])
OPTIONS = [("grpc.default_authority", "tidegate"), ("grpc.lb_policy_name", "round_robin"), ("grpc.use_local_subchannel_pool", 1)]
stop = threading.Event()
answered, errors, lock = [0], collections.Counter(), threading.Lock()


def ask(number):
    descriptor = RateLimitDescriptor()
    descriptor.entries.add(key="user", value=f"client-{number}")
    request = RateLimitRequest(domain="default", descriptors=[descriptor])
    with grpc.insecure_channel(NODES, options=OPTIONS) as channel:
        stub = RateLimitServiceStub(channel)
        while not stop.is_set():
            try:
                stub.ShouldRateLimit(request, timeout=5)
                with lock:
                    answered[0] += 1
            except grpc.RpcError as error:
                with lock:
                    errors[f"{error.code()}: {error.details()}"] += 1
            time.sleep(0.01)


clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for client in clients:
    client.start()
sys.stdin.read()
stop.set()
for client in clients:
    client.join()
print(f"{answered[0]} answered, {sum(errors.values())} lost {dict(errors)}")
