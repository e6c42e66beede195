//! Asks STS who it is, as any program with the AWS SDK for Rust would: by the default credential chain.
//!
//! Prints the reply's ARN, then the access key it signed with.

use std::error::Error;
use std::io::Write;

use aws_config::BehaviorVersion;
use aws_sdk_sts::config::ProvideCredentials;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let reply = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await?;
    let provider = config.credentials_provider().ok_or("no credentials provider")?;
    let credentials = provider.provide_credentials().await?;
    writeln!(std::io::stdout(), "{}\n{}", reply.arn().unwrap_or_default(), credentials.access_key_id())?;
    Ok(())
}
