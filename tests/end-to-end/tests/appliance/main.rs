//! The appliance in QEMU with the real service, the real tools and a real camera, as the people around it see them. Two tests
//! at a time are well on two processors: each waits for much.

mod chance;
mod op_tee;
mod power_cuts;
mod resets;
mod sticks;
mod whole_line;
mod worst_neighbour;
