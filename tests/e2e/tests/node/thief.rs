//! Pods with hostPort 80, by each way in which portmap writes its rules.

use super::pods_with_credentials;
use crate::harness::{Agent, Builder, IPV4, IPV6, Shape, Thief, eventually, on_a_node, sandbox};

/// What the self-probe says.
async fn self_probe(agent: &Agent) -> String {
    let page = agent.probe("/readyz").await.expect("an answer").json();
    let conditions = page["conditions"].as_array().expect("conditions").clone();
    let alone = conditions.iter().find(|condition| condition["name"] == "self-probe").expect("the condition");
    alone["reason"].as_str().unwrap_or_default().to_owned()
}

/// Unguarded, a token does reach the thief: the rules are as bad as the real ones. The agent says who it is.
fn assert_told(shape: Shape) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let thief = Thief::new(node.pod(&sandbox)).await;
        let agent = Builder::on_a_node(&sandbox).start().await;
        let pods = pods_with_credentials(node, &sandbox, 1, IPV4).await;
        eventually("the agent finds itself", async || self_probe(&agent).await.is_empty()).await;
        node.sh(&thief.rules(shape));
        for at in [IPV4, IPV6] {
            assert_eq!(pods[0].ask(at).await.unwrap().status, 404, "the thief answers at {at}");
        }
        assert_eq!(thief.tokens(), 2);
        // A change of links makes it look again; so do changes of rules where they are watched, and half a
        // minute.
        node.pod(&sandbox);
        node.ip("addr add 10.9.9.9/32 dev pod-id-link0\naddr del 169.254.170.23/32 dev pod-id-link0\n");
        node.ip("addr add 169.254.170.23/32 dev pod-id-link0\n");
        eventually("the thief is named", async || {
            let said = self_probe(&agent).await;
            said.contains("another process answers on 169.254.170.23:80") && said.contains("Server: ingress")
        })
        .await;
    });
}

#[test]
fn portmaps_nftables_rules_are_told_by_the_self_probe() {
    assert_told(Shape::Nftables);
}

#[test]
fn portmaps_iptables_nft_rules_are_told_by_the_self_probe() {
    assert_told(Shape::IptablesNft);
}

#[test]
fn portmaps_iptables_legacy_rules_are_told_by_the_self_probe() {
    assert_told(Shape::IptablesLegacy);
}
