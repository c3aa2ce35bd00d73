//! Every seed and every case that was found runs as it should: no panic, no more memory than allowed.
//!
//! One test in this program: the memory of a process is counted, not that of a thread.

#[test]
fn seeds_and_found_cases_run() {
    keelson_fuzz::warm_up();
    let mut count = 0;
    for target in keelson_fuzz::TARGETS {
        let inputs = keelson_fuzz::inputs(target);
        assert!(!inputs.is_empty(), "{} has no seeds", target.name);
        for (name, input) in inputs {
            // What panics is told by the file's name.
            println!("{name}");
            keelson_fuzz::run(target, &input);
            count += 1;
        }
    }
    println!("{count} inputs");
}
