//! The LocalAPI of tailscaled, by hand: `GET` over its Unix socket, bounded in size and time.
