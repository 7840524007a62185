//! A program without std that asks the crate for a reply. It exits with 0 if the reply is the expected one.
#![no_std]
#![no_main]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_int, c_void};
use core::panic::PanicInfo;

use device_flow::server::{Next, Policy, RateState, Request, Server, ServerKeys, PolicyOptions};

#[link(name = "c")]
unsafe extern "C" {
    fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn abort() -> !;
}

struct Libc;

// SAFETY: this is the allocator of the C library. It requires that the size is a multiple of the alignment, so the size is rounded up.
unsafe impl GlobalAlloc for Libc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size().next_multiple_of(layout.align());
        unsafe { aligned_alloc(layout.align(), size).cast() }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        unsafe { free(block.cast()) }
    }
}

#[global_allocator]
static ALLOCATOR: Libc = Libc;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe { abort() }
}

/// The precompiled `core` and `alloc` refer to this function, but with `panic = "abort"` nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See `rust_eh_personality`.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    unsafe { abort() }
}

#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const u8) -> c_int {
    let options = PolicyOptions::default();
    let Ok(policy) = Policy::new("https://login.example.com/device", options) else {
        return 1;
    };
    let Ok(keys) = ServerKeys::new(b"0123456789abcdef0123456789abcdef") else {
        return 2;
    };
    let server = Server::new(policy, keys);
    // Any moment will do, because a request that is not a POST is refused before the clock matters.
    let now = RateState::from_millis(0).purge_at();
    let mut exchange = server.token(Request::new("GET", b""), "", now);
    match exchange.next() {
        Next::Done(reply) if reply.response().status() == 405 => 0,
        _ => 3,
    }
}
