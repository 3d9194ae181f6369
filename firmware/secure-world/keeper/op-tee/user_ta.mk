user-ta-uuid := bcf379b2-8939-4ed3-bea5-872f8309d165
# All of it is in this library; OP-TEE's own, which calls these four, come after it.
user-ta-ldadd := -u TA_CreateEntryPoint -u TA_OpenSessionEntryPoint -u TA_InvokeCommandEntryPoint \
	-u TA_CloseSessionEntryPoint -u TA_DestroyEntryPoint ta/belvedere_keeper/libbelvedere_keeper.a
