//! Asks STS who it is, as any program with the AWS SDK for Rust would: by the default credential chain.
//!
//! Prints the reply's ARN, then the access key it signed with. With the argument `asks` it goes on asking:
//! once for each line that it reads, with a line of JSON for each.

use std::error::Error;
use std::io::{BufRead, Write};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sts::Client;
use aws_sdk_sts::config::ProvideCredentials;
use aws_sdk_sts::error::DisplayErrorContext;
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = Client::new(&config);
    let mut stdout = std::io::stdout();
    if std::env::args().nth(1).as_deref() != Some("asks") {
        let (arn, key) = who_am_i(&config, &client).await?;
        writeln!(stdout, "{arn}\n{key}")?;
        return Ok(());
    }
    writeln!(stdout, "{}", json!({"ready": true}))?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let said = match client.get_caller_identity().send().await {
            Ok(reply) => json!({"ok": true, "arn": reply.arn()}),
            // What the SDK tells its users to print.
            Err(error) => json!({"ok": false, "error": DisplayErrorContext(&error).to_string()}),
        };
        writeln!(stdout, "{said}")?;
    }
    Ok(())
}

async fn who_am_i(config: &SdkConfig, client: &Client) -> Outcome<(String, String)> {
    let reply = client.get_caller_identity().send().await?;
    let provider = config.credentials_provider().ok_or("no credentials provider")?;
    let credentials = provider.provide_credentials().await?;
    Ok((reply.arn().unwrap_or_default().to_owned(), credentials.access_key_id().to_owned()))
}
