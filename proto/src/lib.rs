//! What crosses a wire between Tidegate nodes: frames and messages. Types and codecs, no sockets.
