//! Debug builds can be told to die at a step of a command (ODIN_CRASH_AT=claimed|sending|sent|confirmed), as kill -9 would,
//! so that tests can prove that nothing is sent twice and nothing is lost. Release builds hold none of this.

#[cfg(debug_assertions)]
pub fn at(step: &str, verb: &str) {
    let Ok(wanted) = std::env::var("ODIN_CRASH_AT") else {
        return;
    };
    if wanted == step || wanted == format!("{step}:{verb}") {
        eprintln!("odin-farm: dying at {step} of {verb}, as asked");
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub fn at(_step: &str, _verb: &str) {}
