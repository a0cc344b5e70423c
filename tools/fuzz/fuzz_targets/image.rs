#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kontiki_fuzz::image(input));
