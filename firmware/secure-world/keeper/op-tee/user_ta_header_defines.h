/* What OP-TEE wants to know of a trusted application before it starts one. */
#ifndef USER_TA_HEADER_DEFINES_H
#define USER_TA_HEADER_DEFINES_H

/* belvedere_tee::keeper::APPLICATION */
#define TA_UUID { 0xbcf379b2, 0x8939, 0x4ed3, { 0xbe, 0xa5, 0x87, 0x2f, 0x83, 0x09, 0xd1, 0x65 } }

/* One for everybody, from its first session to the end of this start, and not again when it crashed: closed stays closed. */
#define TA_FLAGS (TA_FLAG_SINGLE_INSTANCE | TA_FLAG_MULTI_SESSION | TA_FLAG_INSTANCE_KEEP_ALIVE | \
		  TA_FLAG_INSTANCE_KEEP_CRASHED)

#define TA_STACK_SIZE (8 * 1024)
#define TA_DATA_SIZE (16 * 1024)

#define TA_VERSION "1"
#define TA_DESCRIPTION "Belvedere's keeper"

#endif
