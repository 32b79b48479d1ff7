//! What every server promises, in one list: each promise is a test of tiny_http, rouille and EventServer.
//!
//! What is specific to one of them is in `adapter` and `server`.

/// Makes each of these functions a test of each of these servers.
macro_rules! promises {
    ([$($server:ident)*] $promises:tt) => {
        $(promises! { @ $server $promises })*
    };
    (@ tiny_http $promises:tt) => {
        #[cfg(feature = "tiny_http")]
        promises! { @ tiny_http, $promises }
    };
    (@ rouille $promises:tt) => {
        #[cfg(feature = "rouille")]
        promises! { @ rouille, $promises }
    };
    (@ event_server $promises:tt) => {
        #[cfg(feature = "server")]
        promises! { @ event_server, $promises }
    };
    (@ $server:ident, { $($promise:ident),* $(,)? }) => {
        mod $server {
            $(
                #[test]
                fn $promise() {
                    super::$promise(crate::contract::servers::$server);
                }
            )*
        }
    };
}

mod servers;

// --- promises of all ---
mod cors;
mod refusals;
mod resume;
mod streams;

// --- promises of the adapters, which leave the request's body and the response's headers to the program ---
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod bodies;
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod headers;

// --- promises of the servers whose chunks this crate writes ---
#[cfg(any(feature = "tiny_http", feature = "server"))]
mod chunks;
