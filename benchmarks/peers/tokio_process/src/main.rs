//! tokio::process on the multi-threaded runtime:
//! `tokio_process sequential|capture COUNT`, `tokio_process burst|capture-burst COUNT AT_ONCE`.
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

async fn one(capture: bool) {
    if capture {
        let output = Command::new("/bin/echo").arg("x").stdin(Stdio::null()).output().await.unwrap();
        assert!(output.status.success() && output.stdout == b"x\n");
    } else {
        let mut command = Command::new("/bin/true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().await.unwrap().success());
    }
}

async fn together(count: usize, capture: bool) {
    if count == 1 {
        return one(capture).await;
    }
    let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(one(capture))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn cpu_us() -> f64 {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) }, 0);
    let us = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

async fn measure(mode: String, count: usize, at_once: usize) {
    let capture = mode.starts_with("capture");
    together(10, capture).await;
    let (used, began) = (cpu_us(), Instant::now());
    for _ in 0..count {
        together(at_once, capture).await;
    }
    let (took, spawns) = (began.elapsed().as_secs_f64(), (count * at_once) as f64);
    println!("{{\"rate\": {:.3}, \"cpu_us\": {:.3}}}", spawns / took, (cpu_us() - used) / spawns);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let count = args[2].parse().unwrap();
    let at_once = if args[1].ends_with("burst") { args[3].parse().unwrap() } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(args[1].clone(), count, at_once));
}
