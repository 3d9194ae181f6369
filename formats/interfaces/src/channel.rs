//! Channels: Unix `SOCK_SEQPACKET` connections. Every packet is one JSON object of at most [`MAXIMUM_PACKET`] bytes
//! whose member `kind` names the message, with at most [`MAXIMUM_DESCRIPTORS`] file descriptors beside it
//! (`SCM_RIGHTS`).
//!
//! A connection *is* the permission to use what is at its other end: `applications` connects on behalf of an
//! application, says what the connection is for, and hands the connected socket to the application's process through
//! that application's own `node.sock`. The application then talks to `decoder`, `inference` and `display` directly,
//! and can reach nothing that its graph does not name. When a process dies its connections close, and everything that
//! it held (leases, output buffers) returns.
//!
//! The first packet names the *owner*: the application instance on whose behalf the channel is opened. What servers
//! bound, they bound for each owner, so that who takes much takes it from itself. A server that does not open a channel,
//! or ends it for such a reason, says why in its last packet (`refused`, `failed`).

/// A packet's largest size in bytes.
pub const MAXIMUM_PACKET: usize = 65_536;
/// The most file descriptors beside one packet.
pub const MAXIMUM_DESCRIPTORS: usize = 4;
/// The longest name of an owner, in bytes.
pub const MAXIMUM_OWNER: usize = 256;

/// Decoded pictures. Client: an application (socket from `applications`), or a test.
///
/// ```text
/// client → {"kind":"subscribe","stream_id":S,"owner":O}       first packet, sent by `applications` (or by a test)
/// server → {"kind":"ring","generation":G,"slots":N,"slot_bytes":B,"width":W,"height":H,"stride":R,"format":"bgr24"}
///          + 1 fd: memfd of N×B bytes, sealed SHRINK|GROW|FUTURE_WRITE; again with a new G when the size changes
/// server → {"kind":"frame","generation":G,"slot":I,"sequence":Q,"timestamp_us":T}     T: µs since 1970, arrival
///          holding a lease on slot I for this client
/// client → {"kind":"release","generation":G,"slot":I,"sequence":Q}
/// client → {"kind":"next"}      asks for one frame: the newest not yet seen, at once or when there is one
/// server → {"kind":"stream","state":"playing"|"offline","detail":D}      when it changes
/// server → {"kind":"refused","message":M}                     last packet: there are too many connections, or they were
///                                                             withdrawn
/// first → {"kind":"withdraw","stream_id":S,"owner":O}         instead of `subscribe`, by `applications`: ends all of the
///                                                             owner's connections to that stream (its node is paused)
/// ```
/// A frame is sent only in answer to `next`, so a slow client always gets the newest picture and never a queue.
/// A client may hold at most [`frames::LEASES`] leases, and all connections of an owner to a stream together
/// [`frames::OWNER_LEASES`]; `next` beyond that is answered once one is released. A ring that was announced before may be
/// announced again (same `G`) when the pictures' size comes back.
pub mod frames {
    use serde::{Deserialize, Serialize};

    /// Leases a client may hold at a time.
    pub const LEASES: usize = 2;
    /// Leases that an owner may hold at a time, on all its connections to one stream.
    pub const OWNER_LEASES: usize = 6;

    /// From the client.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Request {
        /// First packet of a connection.
        Subscribe {
            /// See [`crate::camera::StreamConfiguration::stream_id`].
            stream_id: String,
            /// The application instance.
            #[serde(default)]
            owner: String,
        },
        /// Instead of `Subscribe`: ends all connections of an owner to a stream.
        Withdraw {
            /// As in `Subscribe`.
            stream_id: String,
            /// As in `Subscribe`.
            owner: String,
        },
        /// One frame, please.
        Next {},
        /// The slot may be written again.
        Release {
            /// Of the ring.
            generation: u64,
            /// Of the frame.
            slot: u32,
            /// Of the frame: a release that comes twice does no harm.
            sequence: u64,
        },
    }

    /// From the server.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Event {
        /// The memory that frames are in; one memfd beside it.
        Ring {
            /// Distinguishes rings of one stream.
            generation: u64,
            /// Number of slots.
            slots: u32,
            /// Bytes per slot, a multiple of 4,096; slot `i` begins at `i × slot_bytes`.
            slot_bytes: u64,
            /// Pixels.
            width: u32,
            /// Pixels.
            height: u32,
            /// Bytes from one row to the next.
            stride: u32,
            /// Always `bgr24`: one byte blue, green, red.
            format: String,
        },
        /// A picture, with a lease.
        Frame {
            /// Of the ring.
            generation: u64,
            /// Index.
            slot: u32,
            /// Counts pictures of the stream.
            sequence: u64,
            /// Microseconds since 1970 at which the picture arrived from the camera.
            timestamp_us: i64,
        },
        /// How the stream is.
        Stream {
            /// `playing` or `offline`.
            state: String,
            /// For people.
            detail: String,
        },
        /// The stream is not given to this client; the connection ends.
        Refused {
            /// For people: why, and what to do.
            message: String,
        },
    }
}

/// Model calls. Client: an application (socket from `applications`).
///
/// ```text
/// first → {"kind":"open","model":NAME,"owner":O,"inputs":[{"name","shape"}]} + 1 fd: the .onnx file, read-only
///                                                                                                (`applications`)
/// server → {"kind":"ready","inputs":[Tensor],"outputs":[Tensor]} or {"kind":"failed","message"}    answers `open`
/// client → {"kind":"call","id":K,"inputs":[TensorView]} + 1 fd: memfd with the tensors, sealed SHRINK|GROW
/// server → {"kind":"result","id":K,"outputs":[TensorView],"bytes":N}, then N bytes in packets of RESULT_PACKET bytes, the
///          last one shorter: no JSON, no descriptors
///        | {"kind":"error","id":K,"message"}
/// ```
/// Results travel through the socket and not in memory that is shared: pages of a memfd are charged to whom touches them
/// first, which is the server, and live for as long as a client keeps the descriptor. (Checking that a client's own memfd
/// has its pages does not help: it can give them up between the check and the write.) Up to some megabytes this is also
/// the faster way.
pub mod inference {
    use serde::{Deserialize, Serialize};

    /// Largest sum of tensor bytes in one call, either way.
    pub const MAXIMUM_TENSOR_BYTES: u64 = 256 << 20;
    /// Most dimensions of a tensor.
    pub const MAXIMUM_DIMENSIONS: usize = 8;
    /// Bytes of results in one packet.
    pub const RESULT_PACKET: usize = 65_536;

    /// A tensor inside the memory beside a packet: C order, little endian.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct TensorView {
        /// Name in the model; an empty name means the input at this position.
        pub name: String,
        /// numpy's names: `float32`, `float64`, `int8` to `int64`, `uint8` to `uint64`, `bool`.
        pub dtype: String,
        /// Dimensions.
        pub shape: Vec<u64>,
        /// Where it begins, in bytes, a multiple of 64.
        pub offset: u64,
    }

    /// A tensor that a model has; -1 stands for a free dimension.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Tensor {
        /// Name in the model.
        pub name: String,
        /// numpy's name.
        pub dtype: String,
        /// Dimensions.
        pub shape: Vec<i64>,
    }

    /// From the client.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Request {
        /// First packet; the model file beside it.
        Open {
            /// The model node's name, for messages.
            model: String,
            /// The application instance.
            #[serde(default)]
            owner: String,
            /// Inputs as the package's descriptor states them.
            inputs: Vec<Tensor>,
        },
        /// Runs the model.
        Call {
            /// Chosen by the client.
            id: u64,
            /// Inside the memfd.
            inputs: Vec<TensorView>,
        },
    }

    /// From the server.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Event {
        /// The model is loaded.
        Ready {
            /// As the model states them.
            inputs: Vec<Tensor>,
            /// As the model states them.
            outputs: Vec<Tensor>,
        },
        /// The model cannot be loaded.
        Failed {
            /// For people.
            message: String,
        },
        /// The answer to a call.
        Result {
            /// Of the call.
            id: u64,
            /// Inside the bytes that follow.
            outputs: Vec<TensorView>,
            /// How many bytes follow.
            bytes: u64,
        },
        /// A call that failed.
        Error {
            /// Of the call.
            id: u64,
            /// For people.
            message: String,
        },
    }
}

/// Pictures to show. Client: an application (socket from `applications`).
///
/// ```text
/// first → {"kind":"open","application_instance_id":A,"started_us":T}        (`applications`)
/// client → {"kind":"buffer","buffer":B,"bytes":N} + 1 fd: memfd of N bytes, sealed SHRINK|GROW
/// client → {"kind":"show","stream_id":S,"sequence":Q,"buffer":B,"offset":O,"width","height","stride","format":"bgr24",
///           "rectangles":[[left,top,right,bottom]…],"labels":[[text,x,y]…]}      coordinates in 0…1
/// server → {"kind":"shown","sequence":Q}      the buffer may be written again: the picture was taken over (or dropped)
/// server → {"kind":"owner","mine":true|false}      whether the monitor is this application's, after `open` and when it
///          changes
/// server → {"kind":"refused","message":M}     last packet: there are too many connections
/// ```
/// At most [`display::BUFFERS`] buffers and one `show` per stream on its way. The application that started last owns
/// the monitor; the pictures of the others are taken and dropped, so that they never wait.
pub mod display {
    use serde::{Deserialize, Serialize};

    /// Buffers per connection.
    pub const BUFFERS: usize = 16;
    /// Rectangles and labels per picture, each.
    pub const MAXIMUM_MARKS: usize = 256;
    /// Bytes of a label.
    pub const MAXIMUM_LABEL: usize = 256;

    /// From the client.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Request {
        /// First packet.
        Open {
            /// Whose pictures these are.
            application_instance_id: String,
            /// When the application started; the last one owns the monitor.
            started_us: i64,
        },
        /// Memory of the client's; one memfd beside it.
        Buffer {
            /// Chosen by the client, below [`BUFFERS`]; replaces the buffer of that number.
            buffer: u32,
            /// Its size.
            bytes: u64,
        },
        /// A picture.
        Show {
            /// Tile: the stream's name in the application.
            stream_id: String,
            /// Chosen by the client.
            sequence: u64,
            /// Which buffer.
            buffer: u32,
            /// Where the first row begins, in bytes.
            offset: u64,
            /// Pixels, 1 to 4,096.
            width: u32,
            /// Pixels, 1 to 4,096.
            height: u32,
            /// Bytes from row to row.
            stride: u32,
            /// Always `bgr24`.
            format: String,
            /// Left, top, right, bottom in 0…1.
            rectangles: Vec<[f32; 4]>,
            /// Text and the place of its lower left corner in 0…1.
            labels: Vec<(String, f32, f32)>,
        },
    }

    /// From the server.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Event {
        /// The picture was taken over.
        Shown {
            /// Of the picture.
            sequence: u64,
        },
        /// Whether the monitor is this application's.
        Owner {
            /// If not, its pictures are taken and not shown.
            mine: bool,
        },
        /// The channel is not opened; the connection ends.
        Refused {
            /// For people: why, and what to do.
            message: String,
        },
    }
}

/// What `applications` and the SDK inside a container say (`node.sock`). One connection per `panoramasdk.node`.
///
/// ```text
/// client → {"kind":"announce","sdk_version":V,"process_id":P}
/// server → {"kind":"configuration","node":NAME,"application_instance_id":A,
///           "inputs":[Port],"outputs":[Port],"models":[NAME…]}
/// client → {"kind":"connect","what":"frames","port":P,"index":I}  | {"kind":"connect","what":"model","name":M}
///        | {"kind":"connect","what":"display","port":P}
/// server → {"kind":"connected", …the same members} + 1 fd: the channel, already opened as the module docs say
///        | {"kind":"refused","message",  …the same members}
/// client → {"kind":"heartbeat"}      at least every 10 s
/// ```
pub mod node {
    use serde::{Deserialize, Serialize};

    /// From the SDK.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Request {
        /// First packet.
        Announce {
            /// Of the SDK.
            sdk_version: String,
            /// In the container.
            process_id: u32,
        },
        /// Asks for a channel.
        Connect {
            /// What to connect to.
            #[serde(flatten)]
            target: Target,
        },
        /// Still alive.
        Heartbeat {},
    }

    /// What a channel leads to.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "what", rename_all = "snake_case")]
    pub enum Target {
        /// Pictures of one camera.
        Frames {
            /// Media input port of the node.
            port: String,
            /// Which of the cameras bound to it.
            index: u32,
        },
        /// A model node.
        Model {
            /// Its name in the graph.
            name: String,
        },
        /// The monitor.
        Display {
            /// Media output port of the node.
            port: String,
        },
    }

    /// From `applications`.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    pub enum Event {
        /// Answers `announce`.
        Configuration {
            /// The code node's name in the graph.
            node: String,
            /// Whose it is.
            application_instance_id: String,
            /// Input ports.
            inputs: Vec<Port>,
            /// Output ports.
            outputs: Vec<Port>,
            /// Model nodes that may be called.
            models: Vec<String>,
        },
        /// Answers `connect`; the channel beside it.
        Connected {
            /// What was asked for.
            #[serde(flatten)]
            target: Target,
        },
        /// Answers `connect`.
        Refused {
            /// What was asked for.
            #[serde(flatten)]
            target: Target,
            /// For people.
            message: String,
        },
    }

    /// One port of the code node.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Port {
        /// Name.
        pub name: String,
        /// `media`, `string`, `int32`, `float32`, `boolean`.
        #[serde(rename = "type")]
        pub kind: String,
        /// For parameters: the value, after overrides.
        pub value: Option<serde_json::Value>,
        /// For media inputs: the bound camera nodes, by name. For media outputs: the bound data sinks.
        pub bound: Vec<String>,
    }
}
