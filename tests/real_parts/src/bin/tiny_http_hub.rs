//! The channels of hub on tiny_http, to run behind a proxy: `tiny_http_hub ADDRESS`.

use server_sent_events::adapter::tiny_http::{Server, read_body};
use server_sent_events::{History, Publisher};
use tiny_http::{Header, Method, Response};

fn main() {
    let server = Server::bind(std::env::args().nth(1).expect("an address")).unwrap();
    println!("listening on http://{}", server.local_addr().unwrap());
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let served = server.serve(4, move |mut request| {
        let path = request.url().split('?').next().unwrap_or_default();
        let channels: Vec<String> = path.trim_start_matches('/').split(',').map(String::from).collect();
        if *request.method() == Method::Get {
            return publisher.subscription(()).channels(channels).last_event_id_from(&request).respond(request);
        }
        match read_body(&mut request, 1024 * 1024) {
            Ok(body) => {
                let receipt = publisher.publish_to(&channels, String::from_utf8(body).unwrap());
                let watchers = Header::from_bytes("X-Watchers", receipt.subscribers().to_string()).unwrap();
                request.respond(Response::empty(204).with_header(watchers))
            }
            Err(error) => request.respond(Response::from_string(error.to_string()).with_status_code(error.status())),
        }
    });
    served.unwrap();
}
