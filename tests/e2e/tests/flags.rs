//! Every flag of the binary does what its help says: a table, so that a flag without a test fails.

mod node;
mod roles;
mod served;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::harness::binary;

/// A flag, and the test in which its effect is seen: the command, the flag, the file below `tests/e2e/tests`,
/// and the test in it.
type Row = (&'static str, &'static str, &'static str, &'static str);

const TABLE: &[Row] = &[
    ("", "--verbosity", "flags/served.rs", "verbosity_decides_what_is_logged"),
    ("", "--version", "flags/served.rs", "version_is_printed"),
    ("version", "--verbosity", "flags/served.rs", "version_is_printed"),
    (
        "initialize",
        "--verbosity",
        "flags/node.rs",
        "initialize_and_cleanup_print_their_result_at_any_verbosity",
    ),
    ("initialize", "--link", "flags/node.rs", "link_decides_which_link_gets_the_addresses"),
    ("cleanup", "--verbosity", "flags/node.rs", "initialize_and_cleanup_print_their_result_at_any_verbosity"),
    ("cleanup", "--stay", "flags/node.rs", "stay_keeps_cleanup_running_until_sigterm"),
    ("probe", "--verbosity", "flags/node.rs", "probe_asks_the_agent_of_the_pods_own_directory"),
    ("probe", "--state-dir", "flags/node.rs", "probe_asks_the_agent_of_the_pods_own_directory"),
    (
        "status",
        "--output",
        "status.rs",
        "status_names_a_served_pod_with_its_role_and_a_refused_one_with_awss_words",
    ),
    (
        "status",
        "--limit",
        "status.rs",
        "status_names_a_served_pod_with_its_role_and_a_refused_one_with_awss_words",
    ),
    (
        "status",
        "--state-dir",
        "status.rs",
        "status_names_a_served_pod_with_its_role_and_a_refused_one_with_awss_words",
    ),
    ("status", "--verbosity", "status.rs", "without_an_agent_each_command_says_so_and_how_to_go_on"),
    (
        "doctor",
        "--output",
        "status.rs",
        "doctor_names_what_is_missing_with_its_remedy_and_is_content_with_a_good_node",
    ),
    (
        "doctor",
        "--state-dir",
        "status.rs",
        "doctor_names_what_is_missing_with_its_remedy_and_is_content_with_a_good_node",
    ),
    ("doctor", "--verbosity", "status.rs", "without_an_agent_each_command_says_so_and_how_to_go_on"),
    (
        "wait",
        "--timeout",
        "status.rs",
        "wait_returns_when_the_agent_is_ready_and_at_its_time_out_says_what_is_missing",
    ),
    (
        "wait",
        "--state-dir",
        "status.rs",
        "wait_returns_when_the_agent_is_ready_and_at_its_time_out_says_what_is_missing",
    ),
    ("wait", "--verbosity", "status.rs", "without_an_agent_each_command_says_so_and_how_to_go_on"),
    ("server", "--state-dir", "node/switch.rs", "a_container_of_the_old_pod_that_is_started_again_stands_by"),
    (
        "server",
        "--shutdown-delay",
        "node/switch.rs",
        "an_agent_without_a_successor_serves_eight_seconds_more",
    ),
    ("server", "--guard-port-timeout", "flags/node.rs", "what_is_in_force_lasts_as_long_as_the_flags_say"),
    ("server", "--guard-timeout", "flags/node.rs", "what_is_in_force_lasts_as_long_as_the_flags_say"),
    ("server", "--imds-block-timeout", "flags/node.rs", "what_is_in_force_lasts_as_long_as_the_flags_say"),
    ("server", "--verbosity", "flags/served.rs", "verbosity_decides_what_is_logged"),
    ("server", "--cluster-name", "refusals.rs", "a_misspelt_cluster_name_is_told_with_all_that_finds_it"),
    ("server", "--port", "flags/served.rs", "each_listener_is_where_its_flags_say"),
    ("server", "--bind-hosts", "flags/served.rs", "each_listener_is_where_its_flags_say"),
    ("server", "--probe-port", "flags/served.rs", "each_listener_is_where_its_flags_say"),
    ("server", "--metrics-address", "flags/served.rs", "each_listener_is_where_its_flags_say"),
    ("server", "--metrics-port", "flags/served.rs", "each_listener_is_where_its_flags_say"),
    (
        "server",
        "--max-credential-retention-before-renewal",
        "flags/served.rs",
        "retention_is_the_age_at_which_credentials_are_renewed",
    ),
    ("server", "--max-cache-size", "flags/served.rs", "no_more_identities_are_cached_than_the_flag_says"),
    ("server", "--max-service-qps", "flags/served.rs", "background_renewals_keep_to_their_rate"),
    (
        "server",
        "--rotate-credentials",
        "own_credentials.rs",
        "a_file_is_read_again_when_it_changes_and_half_of_it_does_no_harm",
    ),
    ("server", "--endpoint", "flags/served.rs", "the_endpoint_of_the_flag_comes_before_those_of_variables"),
    ("server", "--region", "flags/served.rs", "the_region_of_the_flag_comes_before_that_of_variables"),
    (
        "server",
        "--own-credentials",
        "flags/served.rs",
        "the_agents_own_credentials_come_from_where_the_flag_says",
    ),
    (
        "server",
        "--own-credentials-file",
        "flags/served.rs",
        "the_agents_own_credentials_come_from_where_the_flag_says",
    ),
    ("server", "--node-name", "flags/served.rs", "tokens_of_pods_on_another_node_are_refused"),
    ("server", "--send-node-details", "own_credentials.rs", "the_node_is_named_to_aws_only_when_asked_to"),
    ("server", "--kubernetes", "flags/served.rs", "the_api_server_is_asked_where_the_folder_has_a_token"),
    (
        "server",
        "--kubernetes-credentials",
        "flags/served.rs",
        "the_api_server_is_asked_where_the_folder_has_a_token",
    ),
    (
        "server",
        "--watch-pods",
        "flags/served.rs",
        "pods_are_watched_where_the_node_has_a_name_unless_switched_off",
    ),
    (
        "server",
        "--kubernetes-events",
        "events.rs",
        "a_pod_without_an_association_gets_an_event_that_says_what_to_run_if_events_are_on",
    ),
    (
        "server",
        "--watch-timeout",
        "cluster/api_server.rs",
        "pods_do_not_notice_an_api_server_that_restarts_is_away_or_changes_its_keys",
    ),
    (
        "server",
        "--check-pod-uid",
        "cluster/callers.rs",
        "enforced_checks_serve_pods_where_they_are_and_nobody_with_a_neighbours_token",
    ),
    (
        "server",
        "--check-pod-address",
        "cluster/callers.rs",
        "enforced_checks_serve_pods_where_they_are_and_nobody_with_a_neighbours_token",
    ),
    (
        "server",
        "--jwks-refresh-interval",
        "cluster/api_server.rs",
        "pods_do_not_notice_an_api_server_that_restarts_is_away_or_changes_its_keys",
    ),
    ("server", "--jwks", "verification.rs", "keys_from_a_file_are_followed_when_it_changes"),
    (
        "server",
        "--issuer",
        "verification.rs",
        "an_issuer_with_a_slash_too_much_costs_no_pod_its_credentials_and_is_told",
    ),
    ("server", "--token-verification", "verification.rs", "required_without_keys_is_503_until_the_keys_come"),
    (
        "server",
        "--token-review",
        "flags/served.rs",
        "a_token_that_no_key_proves_is_shown_to_the_api_server_unless_switched_off",
    ),
    (
        "server",
        "--pod-identity",
        "web_identity.rs",
        "without_eks_the_agent_is_ready_and_serves_without_credentials_of_its_own",
    ),
    (
        "server",
        "--service-account-roles",
        "web_identity.rs",
        "an_annotated_pod_gets_its_role_and_a_pod_that_comes_after_a_change_gets_the_new_one",
    ),
    (
        "server",
        "--role-map",
        "web_identity.rs",
        "boto3_the_aws_cli_and_the_sdks_for_rust_and_go_get_the_role_that_the_map_gives_their_pod",
    ),
    (
        "server",
        "--role-limits",
        "web_identity.rs",
        "a_map_is_read_again_a_bad_edit_changes_nothing_and_limits_deny_what_they_do_not_name",
    ),
    (
        "server",
        "--web-identity-audience",
        "flags/roles.rs",
        "tokens_of_the_audiences_that_the_flag_names_are_exchanged_and_no_others",
    ),
    ("server", "--session-name", "web_identity.rs", "pods_of_one_session_name_have_credentials_of_their_own"),
    ("server", "--sts-endpoint", "flags/roles.rs", "sts_is_asked_where_the_flag_says_before_the_variables"),
    (
        "server",
        "--max-stale-after-refusal",
        "flags/served.rs",
        "an_association_that_is_gone_ends_when_the_flag_says",
    ),
    (
        "server",
        "--pod-request-rate",
        "crowd/pods.rs",
        "a_pod_in_a_busy_loop_on_sixty_connections_is_answered_at_its_rate_and_delays_nobody",
    ),
    (
        "server",
        "--shutdown-grace",
        "shutdown.rs",
        "holds_are_shortened_to_the_grace_period_and_end_with_an_answer",
    ),
    ("server", "--manage-link", "node/link.rs", "a_bare_node_needs_no_init_container"),
    ("server", "--link", "flags/node.rs", "link_decides_which_link_gets_the_addresses"),
    (
        "server",
        "--guard-address",
        "node/guard.rs",
        "a_guard_that_is_switched_off_is_out_of_force_and_pods_are_served_without_it",
    ),
    ("server", "--guard-port", "flags/node.rs", "guard_port_is_where_a_guarded_agent_listens"),
    (
        "server",
        "--share-port",
        "node/guard.rs",
        "an_ingress_on_port_80_of_the_host_and_the_agent_live_side_by_side",
    ),
    (
        "server",
        "--block-imds",
        "node/guard.rs",
        "block_imds_keeps_pods_from_the_metadata_service_and_the_host_not",
    ),
    (
        "server",
        "--probe-namespace",
        "pod_probe.rs",
        "the_agent_finds_itself_from_where_a_pod_stands_and_leaves_nothing_behind",
    ),
    (
        "server",
        "--trial-token-file",
        "trial.rs",
        "a_wrong_cluster_name_keeps_it_unready_until_there_is_such_a_cluster",
    ),
    ("server", "--log-format", "flags/served.rs", "the_format_of_the_log_is_json_or_text"),
    ("server", "--audit-log", "audit_log.rs", "there_is_no_audit_log_unless_it_is_switched_on"),
];

/// What the binary says of itself.
fn help(command: &str) -> String {
    let mut agent = Command::new(binary());
    let output = agent.args(Some(command).filter(|command| !command.is_empty())).arg("--help").output();
    String::from_utf8(output.expect("the agent runs").stdout).expect("UTF-8")
}

/// The commands of the binary; it has one more, without a name, which is only flags.
fn commands() -> Vec<String> {
    let help = help("");
    let listed = help.split("Commands:\n").nth(1).expect("commands").split("\n\n").next().expect("a list");
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

/// The long names of a command's flags, in its help.
fn flags_of(command: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let line = line.trim_start();
        // "-p, --port <PORT>" or "--probe-port <PORT>".
        let long = line.split_once(", ").filter(|(short, _)| short.len() == 2).map_or(line, |(_, long)| long);
        let name = long.strip_prefix("--")?.split([' ', '[', '=']).next()?;
        Some(format!("--{name}"))
    };
    help(command).lines().filter_map(of_line).filter(|flag| flag != "--help").collect()
}

#[test]
fn every_flag_of_the_binary_has_a_row_and_every_row_a_flag() {
    let commands = commands();
    for known in ["server", "initialize", "cleanup", "version"] {
        assert!(commands.iter().any(|command| command == known), "{known} is none of {commands:?}");
    }
    let all = commands.iter().map(String::as_str).chain([""]);
    let of_binary: BTreeSet<_> = all
        .flat_map(|command| flags_of(command).into_iter().map(|flag| (command.to_owned(), flag)))
        .collect();
    assert!(of_binary.len() > 30, "the help is understood: {of_binary:?}");
    let of_table: BTreeSet<_> =
        TABLE.iter().map(|(command, flag, _, _)| ((*command).to_owned(), (*flag).to_owned())).collect();
    let without_row: Vec<_> = of_binary.difference(&of_table).collect();
    let without_flag: Vec<_> = of_table.difference(&of_binary).collect();
    assert!(without_row.is_empty(), "flags that no test is named for: {without_row:?}");
    assert!(without_flag.is_empty(), "rows of flags that are not there: {without_flag:?}");
    assert_eq!(TABLE.len(), of_table.len(), "one row for each");
}

#[test]
fn every_test_that_a_row_names_is_there_and_sets_its_flag() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (command, flag, file, test) in TABLE {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let (before, body) =
            text.split_once(&format!("fn {test}()")).unwrap_or_else(|| panic!("no {test} in {file}"));
        let attribute = before.trim_end().trim_end_matches("async").trim_end().lines().next_back();
        let is_test =
            attribute.is_some_and(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
        assert!(is_test, "{test} of {file} does not run as a test");
        // In the test itself, or in the helpers of its file.
        let is_set = body.contains(flag) || text.contains(&format!("\"{flag}\""));
        assert!(is_set, "{test} of {file} never sets {flag} of {command:?}");
    }
}
