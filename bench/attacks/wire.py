"""The bytes of the three protocols, by hand: what an attacker sends no library would."""

import struct

# --- HTTP/2 ----------------------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def hpack(fields):
    """Each field as a literal that is not indexed, which needs no table. No name or value has 127 bytes or more."""
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


def grpc_headers(path, extra=()):
    return hpack([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), (b"te", b"trailers"),
                  (b"content-type", b"application/grpc"), *extra])


def message(content):
    return b"\0" + struct.pack(">I", len(content)) + content


# What begins a connection: all the room that there can be for answers.
GREETING = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, (1 << 31) - 1)) + frame(
    WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65535))


def field(number, value):
    """A field of a protobuf message: bytes, or a number."""
    def varint(n):
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


ENVOY = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
GUBERNATOR = b"/pb.gubernator.V1/GetRateLimits"


def envoy_question(key, value):
    return message(field(1, b"default") + field(2, field(1, field(1, key) + field(2, value))))


# --- Redis protocol and HTTP/1.1 -------------------------------------------------------------------------------------


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def get(path, *headers):
    return b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


def post(path, body, *headers):
    head = b"POST " + path + b" HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n" % len(body)
    return head + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body
