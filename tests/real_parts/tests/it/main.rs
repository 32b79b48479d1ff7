//! What other people made, against the examples and the servers. One program, so that tests that wait do so together.

mod browser;
mod clients;
mod cluster_example;
mod cors;
mod event_server_origins;
mod event_source;
mod hub;
mod hub_cluster;
mod hub_page;
mod listeners;
mod naive_clients;
mod origins;
mod parser;
mod posts;
mod proxies;
mod redis;
mod smuggling;
