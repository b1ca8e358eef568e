//! Lists the catalogue over gRPC, then follows it.
#![allow(clippy::print_stdout)]

use anyhow::Context;
use tokio_stream::StreamExt;
use waymark_proto::v1::catalogue_service_client::CatalogueServiceClient;
use waymark_proto::v1::watch_servers_response::Event;
use waymark_proto::v1::{ListServersRequest, WatchServersRequest};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "http://127.0.0.1:9090".to_owned());
    let once = args.next().is_some_and(|mode| mode == "once");
    let registry = args.next().unwrap_or_default();
    let mut client = CatalogueServiceClient::connect(address).await.context("cannot connect")?;

    let mut page_token = String::new();
    loop {
        let request = ListServersRequest {
            registry: registry.clone(),
            version: "latest".to_owned(),
            page_size: 100,
            page_token,
            ..Default::default()
        };
        let page = client.list_servers(request).await?.into_inner();
        for server in &page.servers {
            println!("{} {}", server.name, server.version);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }

    let mut resume_token = String::new();
    loop {
        let request = WatchServersRequest {
            registry: registry.clone(),
            resume_token: resume_token.clone(),
            ..Default::default()
        };
        let mut events = client.watch_servers(request).await?.into_inner();
        // A stream that ends is taken up again from the last token.
        while let Some(Ok(response)) = events.next().await {
            match response.event {
                Some(Event::SnapshotBegin(_)) => println!("everything before is void"),
                Some(Event::Upserted(server)) => println!("+ {} {}", server.name, server.version),
                Some(Event::Removed(gone)) => println!("- {} {}", gone.name, gone.version),
                Some(Event::SnapshotEnd(_)) => {
                    println!("complete");
                    if once {
                        return Ok(());
                    }
                }
                None => {}
            }
            if !response.resume_token.is_empty() {
                resume_token = response.resume_token;
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}
