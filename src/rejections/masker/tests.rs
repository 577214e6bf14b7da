use super::*;
use proptest::prelude::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(without_secrets(text), expected);
}

#[test]
fn a_secret_in_json_is_hidden_up_to_its_end() {
    check(r#"{"device":"d","password":"it's-hunter2"}"#, r#"{"device":"d","password":"***"}"#);
    check(r#"{"password":"a\"hunter2","v":1}"#, r#"{"password":"***","v":1}"#);
    check(r#"{"password":"a\\","v":1}"#, r#"{"password":"***","v":1}"#);
    check(r#"{"token":["x","hunter2"],"v":1}"#, r#"{"token":***,"v":1}"#);
    check(r#"{"secret":{"a":"x","b":["}",{"c":"hunter2"}]},"v":1}"#, r#"{"secret":***,"v":1}"#);
    check("{\"token\"\n:\r\n\t\"hunter2\"\n,\n\"v\":1}", "{\"token\"\n:\r\n\t\"***\"\n,\n\"v\":1}");
    check(r#"{"pass\u0077ord":"hunter2","v":1}"#, r#"{"pass\u0077ord":"***","v":1}"#);
    check(r#"{"\u006b\u0065\u0079":"hunter2"}"#, r#"{"\u006b\u0065\u0079":"***"}"#);
    check(r#"{"note":"{\"token\":\"hunter2\",\"v\":1}"}"#, r#"{"note":"{\"token\":\"***\",\"v\":1}"}"#);
    check(r#"{"password":-1.5e3,"v":1}"#, r#"{"password":***,"v":1}"#);
    check(r#"{"v":1,"password":hunter 2}"#, r#"{"v":1,"password":***}"#);
}

#[test]
fn if_the_end_of_a_secret_is_uncertain_the_rest_of_the_text_is_hidden() {
    check(r#"{"password":"a"hunter2","v":1}"#, r#"{"password":"***"#);
    check(r#"{"password":"a","hunter2","v":1}"#, r#"{"password":"***"#);
    check(r#"{"token":["x","hunter2"#, r#"{"token":***"#);
    check(r#"{"token":["x"},"hunter2"]"#, r#"{"token":***"#);
    check(r#"{"x"y","token":"hunter2"}"#, r#"{"x"y","token":"***"}"#);
    check("password: -----BEGIN KEY-----\nhunter2\n", "password: ***");
}

#[test]
fn names_of_secrets_are_recognized_in_every_spelling_and_other_names_are_not() {
    for name in [
        "password",
        "passwd",
        "pwd",
        "pass",
        "pass_word",
        "passphrase",
        "token",
        "secret",
        "key",
        "KEY",
        "api_key",
        "apikey",
        "api key",
        "key of the door",
        "X-Api-Key",
        "private_key",
        "access-key",
        "accessKey",
        "key2",
        "auth",
        "Authorization",
        "credential",
        "credentials",
        "bearer",
        "user.pass",
        "clientSecret",
        "db_password_2",
        "AppSKey",
        "nwkskey",
        "writekey",
        "dbpass",
        "sessionId",
        "otp",
    ] {
        check(&format!(r#"{{"{name}":"hunter2"}}"#), &format!(r#"{{"{name}":"***"}}"#));
    }
    for name in [
        "keyboard",
        "monkey",
        "passage",
        "author",
        "compass",
        "bypass",
        "session",
        "pin",
        "p",
        "u",
        "Idempotency-Key",
        "device",
        "sensor",
    ] {
        let text = format!(r#"{{"{name}":"shown"}}"#);
        check(&text, &text);
    }
    check(r#"{"sensor":"token","value":1}"#, r#"{"sensor":"token","value":1}"#);
}

#[test]
fn a_key_in_pem_is_hidden_under_any_name() {
    check(r#"{"x":"-----BEGIN PRIVATE KEY-----\nMIIE\n","v":1}"#, r#"{"x":"***"#);
    check("-----BEGIN PRI", "***");
    check(r#"{"key":"-----BEGIN PRIVATE KEY-----\nMIIE"#, r#"{"key":"***"#);
}

#[test]
fn secrets_in_line_protocol_forms_headers_and_xml_are_hidden() {
    check(r"m,device=d,token=a\ hunter2 b=x", "m,device=d,token=*** b=x");
    check(r"m,api\ key=hunter2,device=d b=x", r"m,api\ key=***,device=d b=x");
    check(r#"m,token=a"hunter2 b=1"#, "m,token=*** b=1");
    check("m,device=d password=hunter2\nm,device=e v=1", "m,device=d password=***\nm,device=e v=1");
    check(r#"m,device=d password="a b, c=1 \" hunter2",v=1 5"#, r#"m,device=d password="***",v=1 5"#);
    check("user=x&pass=a,hunter2&v=1", "user=x&pass=***&v=1");
    check("a=1&pass%77ord=hunter2&v=1", "a=1&pass%77ord=***&v=1");
    check("u=admin&p=hunter2", "u=***&p=***");
    check("m,p=1 u=2", "m,p=1 u=2");
    check("authorization=Bearer aHVudGVyMg==", "authorization=***");
    check("Authorization: Digest a=\"x\", b=\"hunter2\"\r\nX: y", "Authorization: ***\nX: y");
    check("<a><password>hunter2</password></a>", "<a><password>***</password></a>");
    check(r#"{"note":"x\npass=hunter2"}"#, r#"{"note":"x\npass=***"}"#);
}

#[test]
fn credentials_behind_their_scheme_and_in_urls_are_hidden() {
    check(r#"{"device":"Bearer hunter2","v":1}"#, r#"{"device":"Bearer ***","v":1}"#);
    check(r#"{"x":"basic  aHVudGVyMg==","v":1}"#, r#"{"x":"basic  ***","v":1}"#);
    check(r#"{"x":"Token a\"hunter2"}"#, r#"{"x":"Token ***"}"#);
    check(r#"{"x":"http://u:hunter2@h/","v":1}"#, r#"{"x":"http://***@h/","v":1}"#);
    check(r#"{"x":"http:\/\/u:hunter2@h\/"}"#, r#"{"x":"http:\/\/***@h\/"}"#);
    check(r#"{"x":"mqtt://u:hun/t@er2@h"}"#, r#"{"x":"mqtt://***@h"}"#);
    check(r#"{"x":"http://u:hunter"#, r#"{"x":"http://***"#);
    check("`http://u:hun ter2@h/` is", "`http://***");
    check(r#"{"x":"/query?db=a&p=hunter2"}"#, r#"{"x":"/query?db=a&p=***"}"#);
    check(
        "`http://127.0.0.1:8086/write` and http://[::1]:80/",
        "`http://127.0.0.1:8086/write` and http://[::1]:80/",
    );
}

#[test]
fn a_secret_that_an_error_message_repeats_is_hidden() {
    check(
        "the field `password` is `hun`ter2`; allowed: a number",
        "the field `password` is `***`; allowed: a number",
    );
    check(
        "the field `api key` is `hunter2`, which is no number",
        "the field `api key` is `***`, which is no number",
    );
    check("query parameter `p` is `hunter2`", "query parameter `p` is `***`");
    check("the field `p` is `12x`; allowed: a number", "the field `p` is `12x`; allowed: a number");
    check("unknown field `token`", "unknown field `token`");
}

#[test]
fn ordinary_values_are_shown_and_similar_secrets_are_hidden() {
    let hidden = |text: &str, expected: &str| check(text, expected);
    let shown = |text: &str| check(text, text);
    // Messages of this program about a name contain no value.
    shown("column 3: the field `key`: `value` must be at most 4096 bytes long as a string, got 4097");
    hidden("the field `key`: hunter2", "the field `key`: ***");
    hidden("the field `key`: `hunter2`", "the field `key`: ***");
    shown("column 14: the tag `token` is there twice");
    shown("`key` is missing");
    hidden("`token` is hunter2", "`token` is ***");
    // A scheme's name is an ordinary word before other words and before few digits.
    shown("Basic authentication is needed, unknown token at line 3");
    shown(r#"{"type":"Basic sensor","note":"token 5 of 7","value":1}"#);
    hidden("Basic aHVudGVyMg==", "Basic ***");
    hidden("token hunter", "token ***");
    hidden("token 1234 of 7", "token *** of 7");
    hidden("Bearer token hunter2", "Bearer token ***");
    hidden("Token At", "Token ***");
    // A keyword of JSON is shown under any name.
    shown(r#"{"password":null,"authorized":true,"token":false,"v":1}"#);
    shown("m,device=d auth=true,x=1 5");
    hidden(r#"{"password":"true","v":1}"#, r#"{"password":"***","v":1}"#);
    hidden("password=true,hunter2", "password=***");
    hidden("password: true, hunter2", "password: ***");
    hidden(r#"{"password":true hunter2}"#, r#"{"password":***}"#);
    // Numbers under names of counts are shown; other numbers may be secrets.
    shown(r#"{"key_count":5,"max_tokens":4096,"tokenTtl":3600,"v":1}"#);
    shown("m,device=d key_count=12i,token.bytes=7 5");
    hidden(r#"{"key_count":"5","v":1}"#, r#"{"key_count":"***","v":1}"#);
    hidden(r#"{"max_password":1234,"max_pass":1234}"#, r#"{"max_password":***,"max_pass":***}"#);
    hidden(r#"{"token":5,"pin_key":1234}"#, r#"{"token":***,"pin_key":***}"#);
    hidden("m token=12i,key=3 5", "m token=***,key=***");
    // Signal, power: a number with a sign or a fraction is a measurement.
    shown("m,device=d sig=-70,pw=12.5 1700000000");
    shown(r#"{"values":{"pw":12.5,"sig":-70}}"#);
    hidden("m,device=d pw=12.5hunter2,x=1", "m,device=d pw=***,x=1");
    hidden("m,device=d pw=12.5", "m,device=d pw=***");
    hidden("pw=12.5 hunter2", "pw=***");
    hidden(r#"{"pw":1234,"password":12.5,"token":-1}"#, r#"{"pw":***,"password":***,"token":***}"#);
    // Words that only look like names of secrets.
    shown(r#"{"temp_wd":"NW","pumpWd":"NW","secretary":"Bob","tokenizer":"bpe"}"#);
    for name in ["pwd", "dbpwd", "db_pwd", "userPwd", "p_wd", "secret_ary_token", "tokens", "mypass_word"] {
        hidden(&format!(r#"{{"{name}":"hunter2"}}"#), &format!(r#"{{"{name}":"***"}}"#));
    }
}

proptest! {
    #[test]
    fn no_text_around_a_secret_makes_it_panic(
        text in r#"(token|key|pass|ü|"|'|`|:|=|>|<| |\\|,|\{|\}|\[|\]|&|\?|\n|%70|\\u0070|Bearer|://|@|` is |the field `|: `value` must be |true|12.5|5|-----BEGIN){0,40}"#,
    ) {
        without_secrets(&text);
    }

    #[test]
    fn no_secret_of_well_formed_json_is_shown(before in ".{0,20}", secret in ".{0,20}", after in ".{0,20}") {
        let secret = format!("{secret}hunter2{secret}");
        let json = serde_json::json!({"a": before, "password": [secret], "pwd": secret, "z": after}).to_string();
        prop_assert!(!without_secrets(&json).contains("hunter2"), "{json}");
    }
}

#[test]
fn the_time_for_a_long_text_is_proportional_to_its_length() {
    for part in [
        "\\",
        "\"",
        "token",
        "token=a ",
        "token:\"",
        "://u",
        "key\" ",
        "[",
        "pass ",
        "a&",
        "Bearer ",
        "token=a,",
        "key:\n ",
        "`key` is `",
    ] {
        without_secrets(&part.repeat(2_000));
    }
}
