//! The loop-tick witness: a socket that the event loop itself serves, one byte to whoever connects. A connect alone
//! proves nothing (the kernel accepts), a byte proves that the loop turns.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpStream, UnixStream};

use super::heartbeat::Witness;

/// Upstream's own figures: three tries, a second each, a short pause between. One mute try is a stall, not a hang.
const TRIES: u32 = 3;
const TRY_LIMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// A byte came: the loop turns.
    Answered,
    /// Three times nothing.
    Mute,
    /// The file offers no witness.
    NotOffered,
    /// This user may not connect.
    Denied,
    /// Offered, but not there: no evidence.
    Gone,
}

impl Tick {
    /// For the figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Mute => "mute",
            Self::NotOffered => "not_offered",
            Self::Denied => "denied",
            Self::Gone => "gone",
        }
    }
}

/// Asks the witness of process `pid`.
pub async fn ask(home: &Path, pid: u32, witness: Option<Witness>) -> Tick {
    let Some(witness) = witness else {
        return Tick::NotOffered;
    };
    let path = home.join(format!("state/gateway.loop-tick.{pid}.sock"));
    for n in 0..TRIES {
        if n > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let tried = match witness {
            Witness::Socket => attempt(UnixStream::connect(&path)).await,
            Witness::Port(port) => attempt(TcpStream::connect(("127.0.0.1", port))).await,
        };
        match tried {
            Tick::Mute => {}
            Tick::Answered | Tick::NotOffered | Tick::Denied | Tick::Gone => return tried,
        }
    }
    Tick::Mute
}

async fn attempt<S: AsyncRead + Unpin>(connecting: impl Future<Output = std::io::Result<S>>) -> Tick {
    let byte = async {
        let mut stream = connecting.await?;
        stream.read_u8().await
    };
    match tokio::time::timeout(TRY_LIMIT, byte).await {
        Ok(Ok(_)) => Tick::Answered,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::NotFound => Tick::Gone,
            ErrorKind::PermissionDenied => Tick::Denied,
            _ => Tick::Mute,
        },
        Err(_) => Tick::Mute,
    }
}
