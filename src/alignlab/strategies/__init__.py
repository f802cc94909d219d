"""What `trainer=` needs beyond arguments of Lightning's trainer: the machine, sharding by FSDP2, ZeRO on any device."""
