//! Values that are set and empty.

use crate::config::tests::{check_faults, read};

#[test]
fn an_empty_value_is_a_fault_and_never_the_default() {
    let keys: Vec<_> = read("", &[]).expect("the defaults are good").settings;
    for setting in &keys {
        let variable = format!("FOREBAY__{}", setting.key.to_uppercase().replace('.', "__"));
        for empty in ["", " ", "\t"] {
            let faults = read("", &[(&variable, empty)]).expect_err(&variable);
            let begins = format!("environment variable {variable}: {}: ", setting.key);
            assert!(faults.starts_with(&begins) && faults.lines().count() == 1, "{faults}");
        }
        let (table, key) = setting.key.rsplit_once('.').expect("a table and a key");
        let faults = read(&format!("[{table}]\n{key} = \"\"\n"), &[]).expect_err(&setting.key);
        assert!(faults.starts_with(&format!("FILE:2: {}: ", setting.key)), "{faults}");
    }
    let variable = "remove the variable to leave the setting as it is without it";
    let line = "remove the line to leave the setting at its default";
    let entry = "must not have an empty entry; a comma stands between two entries, and nowhere else";
    check_faults(
        "[cluster.headers]\nx-token = \"\"\n",
        &[("FOREBAY__CLUSTER__NODES", ""), ("FOREBAY__CLUSTER__HEADERS__AUTHORIZATION", "")],
        &[
            &format!(
                "environment variable FOREBAY__CLUSTER__NODES: cluster.nodes: must not be empty; {variable}"
            ),
            &format!(
                "environment variable FOREBAY__CLUSTER__HEADERS__AUTHORIZATION: cluster.headers.authorization: must not be empty; {variable}"
            ),
            &format!("FILE:2: cluster.headers.x-token: must not be empty; {line}"),
        ],
    );
    for nodes in ["http://a/x,,http://b/x", "http://a/x,", ",", "http://me:s3cret@a/x, ,http://b/x"] {
        let expected = format!("environment variable FOREBAY__CLUSTER__NODES: cluster.nodes: {entry}");
        check_faults("", &[("FOREBAY__CLUSTER__NODES", nodes)], &[&expected]);
    }
    check_faults(
        "[cluster]\nnodes = [\"http://a/x\", \"\"]\n",
        &[],
        &[&format!("FILE:2: cluster.nodes: {entry}")],
    );
    // An empty list is a value.
    read("[cluster]\nnodes = []\n", &[]).expect("the embedded node");
}
