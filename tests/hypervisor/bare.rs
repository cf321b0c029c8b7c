//! A guest that is a page of machine code: it says `hello`, then counts on the console for ever, and
//! resets the machine when a key is pressed. It needs no more of a machine than a CPU, some memory and
//! a serial port, so it runs where KVM itself is emulated and no Linux would come up.

use std::path::{Path, PathBuf};

/// Where it is loaded.
const ADDRESS: u64 = 0x100_0000;
/// Turns of an empty loop between two lines.
const PAUSE: u32 = 0x8000;

// Long mode, an identity map and a stack are the hypervisor's gifts (Linux' 64-bit boot protocol). The
// counter lies in memory, so that a snapshot without its memory is found out.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .rodata",
    "bare_guest_begin:",
    "cli",
    "lea rsi, [rip + .Lbare_hello]",
    "call .Lbare_write",
    ".Lbare_count:",
    "mov ecx, {PAUSE}",
    ".Lbare_pause:",
    "dec ecx",
    "jnz .Lbare_pause",
    "lea rsi, [rip + .Lbare_name]",
    "call .Lbare_write",
    "inc qword ptr [rip + .Lbare_counter]",
    "mov rbx, [rip + .Lbare_counter]",
    "mov ecx, 16",
    ".Lbare_digit:",
    "rol rbx, 4",
    "mov eax, ebx",
    "and eax, 15",
    "lea rdi, [rip + .Lbare_digits]",
    "mov al, [rdi + rax]",
    "mov dx, 0x3f8",
    "out dx, al",
    "dec ecx",
    "jnz .Lbare_digit",
    "mov al, 10",
    "out dx, al",
    // The keyboard controller: status at 0x64, data at 0x60; the command 0xfe resets.
    "in al, 0x64",
    "test al, 1",
    "jz .Lbare_count",
    "in al, 0x60",
    "lea rsi, [rip + .Lbare_bye]",
    "call .Lbare_write",
    "mov al, 0xfe",
    "out 0x64, al",
    "jmp .Lbare_count",
    ".Lbare_write:",
    "mov dx, 0x3f8",
    ".Lbare_letter:",
    "lodsb",
    "test al, al",
    "jz .Lbare_written",
    "out dx, al",
    "jmp .Lbare_letter",
    ".Lbare_written:",
    "ret",
    ".Lbare_hello: .asciz \"hello\\n\"",
    ".Lbare_name: .asciz \"n=\"",
    ".Lbare_bye: .asciz \"bye\\n\"",
    ".Lbare_digits: .ascii \"0123456789abcdef\"",
    ".balign 8",
    ".Lbare_counter: .quad 0",
    "bare_guest_end:",
    ".popsection",
    PAUSE = const PAUSE,
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static bare_guest_begin: u8;
    static bare_guest_end: u8;
}

#[cfg(target_arch = "x86_64")]
fn code() -> &'static [u8] {
    let (begin, end) = (&raw const bare_guest_begin, &raw const bare_guest_end);
    // SAFETY: the bytes between the two labels are constant data of this program.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from(begin) as usize) }
}

/// Writes the guest's kernel into `dir`; none on other CPUs.
pub fn kernel(dir: &Path) -> Option<PathBuf> {
    #[cfg(not(target_arch = "x86_64"))]
    {
        println!("SKIPPED: the bare guest is x86-64 code");
        let _ = (dir, ADDRESS, PAUSE);
        None
    }
    #[cfg(target_arch = "x86_64")]
    {
        let path = dir.join("bare.elf");
        std::fs::write(&path, elf(code())).unwrap();
        Some(path)
    }
}

/// An ELF file of one segment, entered at its begin.
#[cfg(target_arch = "x86_64")]
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let length = code.len() as u64;
    let fields = [
        // An executable for x86-64, version 1; entry, program headers, no sections, no flags.
        &[(2, 2), (62, 2), (1, 4), (ADDRESS, 8), (64, 8), (0, 8), (0, 4)][..],
        // Sizes: of this header, of a program header and how many, of section headers.
        &[(64, 2), (56, 2), (1, 2), (64, 2), (0, 2), (0, 2)],
        // One segment to be loaded: readable, writable, executable; where in the file, where in memory.
        &[(1, 4), (7, 4), (HEADERS, 8), (ADDRESS, 8), (ADDRESS, 8), (length, 8), (length, 8), (8, 8)],
    ];
    for (value, bytes) in fields.concat() {
        file.extend(&u64::to_le_bytes(value)[..bytes]);
    }
    file.extend(code);
    file
}
