//! Answers of nodes: a status in two bytes, then the body.

#![no_main]

libfuzzer_sys::fuzz_target!(|answer: (u16, &[u8])| forebay_fuzz::read_answer(answer.0, answer.1));
