//! The least of all guests: one instruction.

use kvm_ioctls::Kvm;

/// Runs a guest in real mode whose only instruction is `hlt`, to its end.
#[cfg(target_arch = "x86_64")]
pub fn halt(kvm: &Kvm) -> Result<(), String> {
    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::VcpuExit;

    const AT: u64 = 0x1000;
    const HLT: u8 = 0xf4;
    // Where old Intel processors keep what real mode takes; out of the guest's way.
    const TASK_STATE: usize = 0xfffb_d000;

    #[repr(align(4096))]
    struct Page([u8; 4096]);

    let failed = |what: &'static str| move |error: kvm_ioctls::Error| format!("{what}: {error}");
    // Declared before the VM, and so dropped after it.
    let page = Box::new(Page([HLT; 4096]));
    let vm = kvm.create_vm().map_err(failed("it makes no VM"))?;
    vm.set_tss_address(TASK_STATE).map_err(failed("it takes no task state"))?;
    let region = kvm_userspace_memory_region {
        guest_phys_addr: AT,
        memory_size: page.0.len() as u64,
        userspace_addr: page.0.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the page is as large as told and outlives the VM.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("it takes no memory"))?;
    let mut cpu = vm.create_vcpu(0).map_err(failed("it makes no CPU"))?;
    let mut special = cpu.get_sregs().map_err(failed("it tells no registers"))?;
    (special.cs.base, special.cs.selector) = (0, 0);
    cpu.set_sregs(&special).map_err(failed("it takes no registers"))?;
    let mut registers = cpu.get_regs().map_err(failed("it tells no registers"))?;
    // The second flag is always set.
    (registers.rip, registers.rflags) = (AT, 2);
    cpu.set_regs(&registers).map_err(failed("it takes no registers"))?;
    match cpu.run().map_err(failed("it does not run"))? {
        VcpuExit::Hlt => Ok(()),
        other => Err(format!("it ended with {other:?}")),
    }
}

/// No such guest is written for this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn halt(_kvm: &Kvm) -> Result<(), String> {
    Ok(())
}
