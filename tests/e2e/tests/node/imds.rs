//! Pods and the node's own credentials: EC2's metadata service behind the host.

use std::net::SocketAddr;

use crate::harness::{Builder, IMDS_IPV4, IMDS_IPV6, IPV4, Request, on_a_node, sandbox};

#[test]
fn without_block_imds_pods_and_the_host_reach_the_metadata_service_as_they_always_did() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).start().await;
        let pod = node.pod(&sandbox);
        assert_eq!(pod.ask(IPV4).await.unwrap().status, 200);
        for imds in [IMDS_IPV4, IMDS_IPV6] {
            let (imds, asked) = (SocketAddr::new(imds, 80), Request::get("/latest/meta-data/"));
            assert_eq!(asked.send(imds).await.unwrap().body, "imds", "the host, {imds}");
            assert_eq!(pod.send(asked, imds).await.unwrap().body, "imds", "a pod, {imds}");
        }
    });
}
