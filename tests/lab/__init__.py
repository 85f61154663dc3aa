"""The laboratory: emulated two-node hypervisors in which KVM, vhost, libvirtd and /proc/irq are real."""
