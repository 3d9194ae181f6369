//! What a client asks of the service by publishing, whichever broker it came through. When this returns, it is done and
//! answered.

use crate::identity::Identity;
use crate::topics::Request;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Carries a request out; false for a message, which is for subscribers.
    pub(crate) async fn carry_out(
        &self,
        identity: &Identity,
        request: &Request<'_>,
        payload: &[u8],
    ) -> Result<bool, FleetError> {
        match request {
            Request::Shadow { shadow, operation } => {
                self.shadow_request(&identity.name, shadow, *operation, payload).await?
            }
            Request::Job(request) => self.job_request(&identity.name, &identity.device_id, *request, payload).await?,
            Request::CreateFromCsr => self.create_from_csr(identity, payload).await?,
            Request::RegisterThing => self.register_thing(identity, payload).await?,
            Request::Message => return Ok(false),
        }
        Ok(true)
    }
}
