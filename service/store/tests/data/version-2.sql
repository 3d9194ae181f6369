-- A service's database at version 2 (0001.sql and 0002.sql), written by the program of 2026-11-22 while the real tools
-- walked the whole road; the log is cut to twelve lines, and the last rows of shadow, device_job, upload, upload_part and
-- deployment_object were added by hand. Its key file is version-2.key; both were made for tests.
PRAGMA user_version = 2;
PRAGMA foreign_keys = OFF;

CREATE TABLE access_key (
    access_key_id TEXT PRIMARY KEY,
    secret BLOB NOT NULL,
    description TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;
INSERT INTO "access_key" VALUES('AKIALV6ECHJBKH43J3G3',X'B812956533128CAAF525006FA474EA60380F134F0A19665E265F14CEF8C78B9BF040FDFCC533EB548A092753547157E471759B9C6B3327B57E4095819B2286D19EBE697F','first administrator',1795329076202,NULL);
INSERT INTO "access_key" VALUES('AKIA2CK4EUVYSKFBAU2K',X'E9A3BFE3DB69BC87BE85DB00D014933A783D19071920D30515A6E4277479132555B61326E016D0C85575BA1BCAC92F339E6F9E0B763D33AE4EE30F8A8469E4A66D0DCFE2','second',1795329108666,1795329113857);
CREATE TABLE application_instance (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    application_instance_id TEXT NOT NULL UNIQUE,
    device_id TEXT NOT NULL,
    device_name TEXT NOT NULL,
    name TEXT,
    description TEXT,
    manifest TEXT NOT NULL,
    overrides TEXT,
    role_arn TEXT,
    tags TEXT NOT NULL,
    replaces TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL,
    status_description TEXT NOT NULL,
    health TEXT NOT NULL,
    device_reported_status TEXT,
    device_reported_ms INTEGER,
    document BLOB,                  -- the deployment document, sealed: it holds camera passwords; NULL once removed
    document_sha256 TEXT NOT NULL,
    nodes TEXT NOT NULL             -- NodeRecord[]
) STRICT;
INSERT INTO "application_instance" VALUES(1,'applicationInstance-mre4kdtirhhmws4my2ewzw5ydm','device-ktnjwt7tf6vfv2c25l25ymppei','garden','words',NULL,'{    "nodeGraph": {        "envelopeVersion": "2021-01-01",        "packages": [            {                "name": "123456789012::CODE",                "version": "1.0"            },            {                "name": "123456789012::MODEL",                "version": "1.0"            },            {                "name": "panorama::abstract_rtsp_media_source",                "version": "1.0"            },            {                "name": "panorama::hdmi_data_sink",                "version": "1.0"            }        ],        "nodes": [            {                "name": "code_node",                "interface": "123456789012::CODE.interface"            },            {                "name": "model_node",                "interface": "123456789012::MODEL.model"            },            {                "name": "camera_node",                "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface",                "overridable": true,                "overrideMandatory": true,                "decorator": {                    "title": "Camera"                }            },            {                "name": "output_node",                "interface": "panorama::hdmi_data_sink.hdmi0"            },            {                "name": "threshold",                "interface": "float32",                "value": 0.4,                "overridable": true            }        ],        "edges": [            {                "producer": "camera_node.video_out",                "consumer": "code_node.video_in"            },            {                "producer": "code_node.video_out",                "consumer": "output_node.video_in"            },            {                "producer": "threshold",                "consumer": "code_node.threshold"            }        ]    }}','{    "nodeGraphOverrides": {        "envelopeVersion": "2021-01-01",        "packages": [            {                "name": "123456789012::FRONT_DOOR",                "version": "1.0"            }        ],        "nodes": [            {                "name": "front_door",                "interface": "123456789012::FRONT_DOOR.FRONT_DOOR"            }        ],        "nodeOverrides": [            {                "replace": "camera_node",                "with": [                    {                        "name": "front_door"                    }                ]            }        ]    }}',NULL,'{}',NULL,1795329410367,1795329452884,1,'REMOVAL_SUCCEEDED','as simulated','NOT_AVAILABLE','STOPPED',1795329452884,NULL,'f2b0bea95a3ff660f9aebea506988f727fd5522d07feef4ecf00ff61198fdce6','[{"instance":"front_door","node_id":"FRONT_DOOR-1.0-e5dec385-FRONT_DOOR","node_name":"FRONT_DOOR","package_name":"FRONT_DOOR","package_version":"1.0","patch":"e5dec385057ffb27fee77537fdbf8bb7c94029319aa328ddcbf50dc68125078d","status":"NOT_AVAILABLE"},{"instance":"code_node","node_id":"CODE-1.0-de00d61e-interface","node_name":"interface","package_name":"CODE","package_version":"1.0","patch":"de00d61e1a006e735698f3b35a05c4f66aeb29ac9db2f009557b540b5564e438","status":"NOT_AVAILABLE"},{"instance":"model_node","node_id":"MODEL-1.0-022e4d0c-model","node_name":"model","package_name":"MODEL","package_version":"1.0","patch":"022e4d0cd69d63ab790e5c169cdaef36250dc7206ccb72d15c38c220b20d4050","status":"NOT_AVAILABLE"},{"instance":"output_node","node_id":"hdmi_data_sink-1.0-032f9134-hdmi0","node_name":"hdmi0","package_name":"hdmi_data_sink","package_version":"1.0","patch":"032f9134a91671edbe927e3a21afe24f390a5c66d03d35cfe725cc6657ef54e7","status":"NOT_AVAILABLE"}]');
CREATE TABLE certificate (
    fingerprint TEXT PRIMARY KEY,   -- SHA-256 of the DER, hexadecimal; also the certificate's identifier
    common_name TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES device (device_id) ON DELETE CASCADE,
    kind TEXT NOT NULL,             -- claim, device
    status TEXT NOT NULL,           -- active, pending, consumed, revoked
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    claim TEXT,                     -- fingerprint of the claim that asked for this certificate
    token_hash TEXT,                -- SHA-256 of the ownership token
    token_expires_ms INTEGER
) STRICT;
INSERT INTO "certificate" VALUES('4313c3f09d99a41071fdff7a3a8852bad8e7d8ba53ad37efc31e29c70d276dbf','claim-device-kstzrfx7nhjxpuxhcpbh5tpv2y','device-kstzrfx7nhjxpuxhcpbh5tpv2y','claim','active',1795329426961,1795329726000,NULL,NULL,NULL);
CREATE TABLE deployment_object (
    application_instance_id TEXT NOT NULL REFERENCES application_instance (application_instance_id) ON DELETE CASCADE,
    device_id TEXT NOT NULL,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (device_id, bucket, key, application_instance_id)
) STRICT;
INSERT INTO "deployment_object" VALUES('applicationInstance-mre4kdtirhhmws4my2ewzw5ydm','device-kstzrfx7nhjxpuxhcpbh5tpv2y','b','k');
CREATE TABLE device (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    thing_name TEXT NOT NULL UNIQUE,
    description TEXT,
    tags TEXT NOT NULL,
    networking TEXT,                -- NetworkPayload as given
    provisioning_status TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    serial_number TEXT,
    software_version TEXT,
    network_status TEXT,            -- NetworkStatus as reported
    network_status_ms INTEGER,
    lease_expires_ms INTEGER,
    connected INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO "device" VALUES(2,'device-kstzrfx7nhjxpuxhcpbh5tpv2y','waiting','panorama_waiting_Thing_d6f8adb7',NULL,'{}',NULL,'AWAITING_PROVISIONING',1795329426960,1795329426960,NULL,NULL,NULL,NULL,NULL,0);
CREATE TABLE device_job (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL REFERENCES device (device_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    document TEXT NOT NULL,         -- the job document
    status TEXT NOT NULL,           -- QUEUED, IN_PROGRESS, SUCCEEDED, FAILED, REJECTED
    details TEXT NOT NULL,          -- statusDetails
    version INTEGER NOT NULL,       -- grows with each change
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (device_id, number)
) STRICT;
INSERT INTO "device_job" VALUES(4,'device-kstzrfx7nhjxpuxhcpbh5tpv2y',0,'{"operation":"REBOOT"}','SUCCEEDED','{}',3,1,2);
CREATE TABLE log_event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    stream INTEGER NOT NULL REFERENCES log_stream (sequence) ON DELETE CASCADE,
    timestamp_ms INTEGER NOT NULL,
    ingestion_ms INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;
INSERT INTO "log_event" VALUES(1,1,1795329418375,1795329418401,'line 0');
INSERT INTO "log_event" VALUES(2,1,1795329418376,1795329418401,'line 1');
INSERT INTO "log_event" VALUES(3,1,1795329418377,1795329418401,'line 2');
INSERT INTO "log_event" VALUES(4,1,1795329418378,1795329418401,'line 3');
INSERT INTO "log_event" VALUES(5,1,1795329418379,1795329418401,'line 4');
INSERT INTO "log_event" VALUES(6,1,1795329418380,1795329418401,'line 5');
INSERT INTO "log_event" VALUES(7,1,1795329418381,1795329418401,'line 6');
INSERT INTO "log_event" VALUES(8,1,1795329418382,1795329418401,'line 7');
INSERT INTO "log_event" VALUES(9,1,1795329418383,1795329418401,'line 8');
INSERT INTO "log_event" VALUES(10,1,1795329418384,1795329418401,'line 9');
INSERT INTO "log_event" VALUES(11,1,1795329418385,1795329418401,'line 10');
INSERT INTO "log_event" VALUES(12,1,1795329418386,1795329418401,'line 11');
CREATE TABLE log_group (
    name TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "log_group" VALUES('/aws/panorama/devices/device-ktnjwt7tf6vfv2c25l25ymppei/applications/applicationInstance-mre4kdtirhhmws4my2ewzw5ydm',1795329418130);
CREATE TABLE log_stream (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    log_group TEXT NOT NULL REFERENCES log_group (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    first_event_ms INTEGER,
    last_event_ms INTEGER,
    last_ingestion_ms INTEGER,
    UNIQUE (log_group, name)
) STRICT;
INSERT INTO "log_stream" VALUES(1,'/aws/panorama/devices/device-ktnjwt7tf6vfv2c25l25ymppei/applications/applicationInstance-mre4kdtirhhmws4my2ewzw5ydm','code_node',1795329418347,1795329418375,1795329418574,1795329418506);
CREATE TABLE node (
    node_id TEXT PRIMARY KEY,
    version_sequence INTEGER NOT NULL REFERENCES package_version (sequence) ON DELETE CASCADE,
    name TEXT NOT NULL,
    category TEXT NOT NULL,
    description TEXT NOT NULL,
    asset TEXT,
    interface TEXT NOT NULL,        -- NodeInterface
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "node" VALUES('FRONT_DOOR-1.0-e5dec385-FRONT_DOOR',1,'FRONT_DOOR','MEDIA_SOURCE','','rtsp_v1_asset','{"Inputs":[],"Outputs":[{"Name":"video_out","Type":"MEDIA"}]}',1795329142781);
INSERT INTO "node" VALUES('CODE-1.0-de00d61e-interface',2,'interface','BUSINESS_LOGIC','','code_asset','{"Inputs":[{"MaxConnections":0,"Name":"video_in","Type":"MEDIA"},{"DefaultValue":"0.5","MaxConnections":0,"Name":"threshold","Type":"FLOAT32"}],"Outputs":[{"Name":"video_out","Type":"MEDIA"}]}',1795329208563);
INSERT INTO "node" VALUES('MODEL-1.0-022e4d0c-model',3,'model','ML_MODEL','','model_asset','{"Inputs":[{"MaxConnections":0,"Name":"video_in","Type":"MEDIA"}],"Outputs":[{"Name":"video_out","Type":"MEDIA"}]}',1795329310063);
CREATE TABLE object (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    crc32 TEXT,                     -- base64, big endian; NULL for objects put together from parts
    content_type TEXT NOT NULL,
    modified_ms INTEGER NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT;
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/FRONT_DOOR/manifests/1.0/e5dec385057ffb27fee77537fdbf8bb7c94029319aa328ddcbf50dc68125078d.json',355,'e032cf5ffc48482946cbd87e3a373340','aab2503ebfa40e3378aa21cf26870ee263ef92bdd652f9e3123704efcccac769','fcg5rg==','application/json',1795329142685,'71d5db1740537f4e49296c914bdfd16a');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/CODE/binaries/25561819fa5d3ff8bd15b370f20216d5cccbdd56d3e8848fb0526fc4f618fb36.tar.gz',441,'4074fb480d941d3c58af04bae62d55ee','25561819fa5d3ff8bd15b370f20216d5cccbdd56d3e8848fb0526fc4f618fb36','y3wykg==','application/x-tar',1795329172878,'470550416dd20757637f6d09f4297e29');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/CODE/binaries/577ccf8b6cff24dc1f90cc2af22644ee9d0c81b5a22e771287bf3630e1b7b8fb.json',114,'a02ba2d0cb4be586161b5f044d90b56a','577ccf8b6cff24dc1f90cc2af22644ee9d0c81b5a22e771287bf3630e1b7b8fb','ZK3hVA==','application/json',1795329181118,'fcfc3a9fc16ee12a44ac221808941353');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/CODE/manifests/1.0/de00d61e1a006e735698f3b35a05c4f66aeb29ac9db2f009557b540b5564e438.json',1339,'d312d6d9808054787a321e4360f6b820','de00d61e1a006e735698f3b35a05c4f66aeb29ac9db2f009557b540b5564e438','MKFdIQ==','binary/octet-stream',1795329197661,'a7c7ceac89aa908972f7d5360ff86973');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/MODEL/binaries/f01417ffa8d2cc4380d36640b28b92cd6b617c445658166bbd5f90b25d00205e.tar.gz',9437184,'53b884bed380d9423a20e0dc12cec2c3-2','f01417ffa8d2cc4380d36640b28b92cd6b617c445658166bbd5f90b25d00205e',NULL,'application/x-tar',1795329259345,'061d8c67010a2f6c47c7cc6f6c792570');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/MODEL/binaries/c0a978ce4eb836f719f69c4cc184934cc16a05efd3db8d06b40a7563be12e9b0.json',189,'56624fa0f9e32a40d540103455d37d85','c0a978ce4eb836f719f69c4cc184934cc16a05efd3db8d06b40a7563be12e9b0','PwYQ/A==','application/json',1795329279449,'7a65acd765328d568a7b56b0e0045641');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/MODEL/manifests/1.0/022e4d0cd69d63ab790e5c169cdaef36250dc7206ccb72d15c38c220b20d4050.json',1110,'ad30384376425e00a11dc6dcf5569e73','022e4d0cd69d63ab790e5c169cdaef36250dc7206ccb72d15c38c220b20d4050','CRkvPQ==','binary/octet-stream',1795329300254,'099d702cb865844103273b9faaceb80b');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/BROKEN/manifests/1.0/bb.json',635,'93481222a7b51fb4cde179a7a3185940','2bd92d3c713919c567d3dd605d8764e114f5641865c112778f87004ed6291a1a','siLIDQ==','binary/octet-stream',1795329369597,'e996c66c2f7537361b661e922649120f');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/BROKEN/binaries/25561819fa5d3ff8bd15b370f20216d5cccbdd56d3e8848fb0526fc4f618fb36.tar.gz',6,'004b90d1c33f90c1b05780e691f79ac5','06121725c433ccd0469b52730a723e66a9c1e31c67c42b1dba6b501f0bf94c9d','pxk79Q==','binary/octet-stream',1795329369686,'bc04c985cd03653ba0c6cba62c487fab');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','123456789012/nodePackages/BROKEN/binaries/577ccf8b6cff24dc1f90cc2af22644ee9d0c81b5a22e771287bf3630e1b7b8fb.json',6,'004b90d1c33f90c1b05780e691f79ac5','06121725c433ccd0469b52730a723e66a9c1e31c67c42b1dba6b501f0bf94c9d','pxk79Q==','binary/octet-stream',1795329369705,'7aea05ec9ccb28824f343bf7ba63ff71');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','test/http large',20971520,'01deb2ebf189eff9348653ac10320499-3','bf894fb5ab990982143391b178bd2311bda979c113945056b743ccc77381b4df',NULL,'application/octet-stream',1795329373149,'efe90a834c5cfad3009893304b11b042');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','test/https large',20971520,'01deb2ebf189eff9348653ac10320499-3','bf894fb5ab990982143391b178bd2311bda979c113945056b743ccc77381b4df',NULL,'application/octet-stream',1795329388554,'fe16a5680edb16924ab3749c85d24a54');
INSERT INTO "object" VALUES('panorama-123456789012-exyifiscmlgydrbrik3cp3r4ka','test/https-small',11,'e9aded2a1b0dd6d497f079b71f504315','d151a4b5ca6a480026e716d49117d738dc7eac4b05dbb21123e4ae095c015d3d','CctlYA==','text/plain',1795329398434,'9a5580d81dbe69fb8bf836fef9affb1a');
CREATE TABLE package (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    package_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    tags TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "package" VALUES(1,'package-wgjgedqhpi4z7o3zqdsenukf6i','FRONT_DOOR','{}',1795329142609);
INSERT INTO "package" VALUES(2,'package-ilzkcwcmgzqcue4m54kq65xoiy','CODE','{}',1795329158845);
INSERT INTO "package" VALUES(3,'package-fa36tug3pqver5crwtbikbbagu','MODEL','{}',1795329226919);
INSERT INTO "package" VALUES(4,'package-3pzxfi37im32hjlqveim6frxse','BROKEN','{}',1795329369478);
CREATE TABLE package_version (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    package_id TEXT NOT NULL REFERENCES package (package_id) ON DELETE CASCADE,
    version TEXT NOT NULL,
    patch TEXT NOT NULL,
    status TEXT NOT NULL,
    status_description TEXT,
    latest INTEGER NOT NULL,
    registered_ms INTEGER NOT NULL,
    manifest TEXT NOT NULL,         -- package.json as registered
    camera BLOB,                    -- sealed template parameters, when it is a camera
    UNIQUE (package_id, version, patch)
) STRICT;
INSERT INTO "package_version" VALUES(1,'package-wgjgedqhpi4z7o3zqdsenukf6i','1.0','e5dec385057ffb27fee77537fdbf8bb7c94029319aa328ddcbf50dc68125078d','REGISTER_COMPLETED',NULL,1,1795329142781,'{"nodePackage":{"assets":[{"implementations":[{"assetUri":"source/video/camera/rtsp/source_rtsp","type":"system"}],"name":"rtsp_v1_asset"}],"envelopeVersion":"2021-01-01","interfaces":[{"asset":"rtsp_v1_asset","category":"media_source","inputs":[],"name":"FRONT_DOOR","outputs":[{"name":"video_out","type":"media"}]}],"name":"FRONT_DOOR","version":"1.0"}}',X'2C030EFD618187651C534069483235C5181FA8D711DF490C043FCEFA774A2B50B45B188550467062B37479C96574CDF65740F8944CB3374FA78AA9CE75069BF6542C343B6D37AC049C05EDB2677E78ABD21EBCE202443A0AF6A14EFACDD4863A8607E22B543F6EDAECF282C7070058F3C15F778AB837');
INSERT INTO "package_version" VALUES(2,'package-ilzkcwcmgzqcue4m54kq65xoiy','1.0','de00d61e1a006e735698f3b35a05c4f66aeb29ac9db2f009557b540b5564e438','REGISTER_COMPLETED',NULL,1,1795329208563,'{
    "nodePackage": {
        "envelopeVersion": "2021-01-01",
        "name": "CODE",
        "version": "1.0",
        "description": "Code of the sample.",
        "assets": [
            {
                "name": "code_asset",
                "implementations": [
                    {
                        "type": "container",
                        "assetUri": "25561819fa5d3ff8bd15b370f20216d5cccbdd56d3e8848fb0526fc4f618fb36.tar.gz",
                        "descriptorUri": "577ccf8b6cff24dc1f90cc2af22644ee9d0c81b5a22e771287bf3630e1b7b8fb.json"
                    }
                ]
            }
        ],
        "interfaces": [
            {
                "name": "interface",
                "category": "business_logic",
                "asset": "code_asset",
                "inputs": [
                    {
                        "name": "video_in",
                        "type": "media"
                    },
                    {
                        "name": "threshold",
                        "type": "float32",
                        "default": 0.5
                    }
                ],
                "outputs": [
                    {
                        "name": "video_out",
                        "type": "media"
                    }
                ]
            }
        ]
    }
}',NULL);
INSERT INTO "package_version" VALUES(3,'package-fa36tug3pqver5crwtbikbbagu','1.0','022e4d0cd69d63ab790e5c169cdaef36250dc7206ccb72d15c38c220b20d4050','REGISTER_COMPLETED',NULL,1,1795329310063,'{
    "nodePackage": {
        "envelopeVersion": "2021-01-01",
        "name": "MODEL",
        "version": "1.0",
        "assets": [
            {
                "name": "model_asset",
                "implementations": [
                    {
                        "type": "model",
                        "assetUri": "f01417ffa8d2cc4380d36640b28b92cd6b617c445658166bbd5f90b25d00205e.tar.gz",
                        "descriptorUri": "c0a978ce4eb836f719f69c4cc184934cc16a05efd3db8d06b40a7563be12e9b0.json"
                    }
                ]
            }
        ],
        "interfaces": [
            {
                "name": "model",
                "category": "ml_model",
                "asset": "model_asset",
                "inputs": [
                    {
                        "name": "video_in",
                        "type": "media"
                    }
                ],
                "outputs": [
                    {
                        "name": "video_out",
                        "type": "media"
                    }
                ]
            }
        ]
    }
}',NULL);
INSERT INTO "package_version" VALUES(4,'package-3pzxfi37im32hjlqveim6frxse','1.0','aa','FAILED','there is no package document at 123456789012/nodePackages/BROKEN/manifests/1.0/aa.json, or it is larger than 1048576 bytes',1,1795329369491,'',NULL);
CREATE TABLE shadow (
    thing_name TEXT NOT NULL REFERENCES device (thing_name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,       -- kept when the shadow is deleted: versions never go back
    document TEXT,                  -- {"desired","reported","metadata"}; NULL: deleted
    PRIMARY KEY (thing_name, name)
) STRICT;
INSERT INTO "shadow" VALUES('panorama_waiting_Thing_d6f8adb7','device',3,'{"desired":{},"reported":{"a":1},"metadata":{}}');
CREATE TABLE template_job (
    job_id TEXT PRIMARY KEY,
    input TEXT NOT NULL,            -- the request, its secrets replaced
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "template_job" VALUES('8f3af7424dc9fbabde02324351013373','{"NodeDescription":"FRONT_DOOR","NodeName":"FRONT_DOOR","OutputPackageName":"FRONT_DOOR","OutputPackageVersion":"1.0","TemplateParameters":{"Password":"SAVED_AS_SECRET","StreamUrl":"rtsp://10.0.2.2:8554/words","Username":"SAVED_AS_SECRET"},"TemplateType":"RTSP_CAMERA_STREAM"}',1795329142826);
CREATE TABLE upload (
    upload_id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "upload" VALUES('0123456789abcdef0123456789abcdef','b','k','x',1);
CREATE TABLE upload_part (
    upload_id TEXT NOT NULL REFERENCES upload (upload_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (upload_id, number)
) STRICT;
INSERT INTO "upload_part" VALUES('0123456789abcdef0123456789abcdef',1,5,'5d41402abc4b2a76b9719d911017c592','00aa');
CREATE UNIQUE INDEX device_name ON device (name);
CREATE INDEX certificate_device ON certificate (device_id);
CREATE INDEX application_instance_device ON application_instance (device_id);
CREATE INDEX log_event_time ON log_event (stream, timestamp_ms, sequence);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('device',3);
INSERT INTO "sqlite_sequence" VALUES('package',4);
INSERT INTO "sqlite_sequence" VALUES('package_version',6);
INSERT INTO "sqlite_sequence" VALUES('application_instance',1);
INSERT INTO "sqlite_sequence" VALUES('log_stream',1);
INSERT INTO "sqlite_sequence" VALUES('log_event',200);
INSERT INTO "sqlite_sequence" VALUES('device_job',4);
PRAGMA foreign_keys = ON;
