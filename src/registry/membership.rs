//! Which subscriber is in which channels.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Deferred, Limits, OnLeave, Registry, State};
use crate::error::OpenError;
use crate::event::Frame;
use crate::log::Subject;
use crate::queue::{Properties, Subscriber, SubscriberId};
use crate::stats::EndCause;
use crate::sync::channel::Sender;

/// One subscriber's entry in the registry.
pub(super) struct Membership {
    pub(super) subscriber: Arc<Subscriber>,
    /// Its channels, in the order in which it named them.
    pub(super) channels: Vec<Arc<str>>,
    /// Publishers that wait for its room, by their tickets. The publisher that has waited longest comes first
    /// everywhere, so that no two wait for each other.
    pub(super) waiting_publishers: BTreeMap<u64, Sender<()>>,
    /// The closures to call at its end.
    pub(super) on_leave: Vec<OnLeave>,
    /// Keeps the hooks' publisher alive until the hook of the end was called.
    pub(super) guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl Registry {
    /// Returns the properties of the subscribers of these channels, without duplicates, the oldest subscriber first.
    pub(crate) fn subscribers(&self, channels: &[&str]) -> Vec<(SubscriberId, Properties)> {
        let state = self.state.lock();
        let members = channels.iter().filter_map(|&channel| state.channels.get(channel)).flatten();
        let found: BTreeMap<SubscriberId, Properties> =
            members.map(|(id, subscriber)| (*id, subscriber.properties().clone())).collect();
        found.into_iter().collect()
    }

    /// Returns the properties of all subscribers, the oldest subscriber first.
    pub(crate) fn all_subscribers(&self) -> Vec<(SubscriberId, Properties)> {
        let state = self.state.lock();
        state.members.iter().map(|(id, member)| (*id, member.subscriber.properties().clone())).collect()
    }

    /// Removes these subscribers from these channels. A subscriber that is in no channel afterwards ends after its
    /// queued events. Returns how many of them were in one of the channels.
    pub(crate) fn unsubscribe(&self, channels: &[&str], subscribers: &[SubscriberId]) -> (usize, Deferred) {
        let mut deferred = Deferred::default();
        let channels: HashSet<&str> = channels.iter().copied().collect();
        let mut state = self.state.lock();
        let mut left = 0;
        for &id in subscribers {
            left += usize::from(self.leave_channels(&mut state, &channels, id, &mut deferred) > 0);
        }
        (left, deferred)
    }

    /// Returns the channels of the subscriber; none if it has left.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn channels_of(&self, id: SubscriberId) -> Vec<Arc<str>> {
        self.state.lock().members.get(&id).map(|member| member.channels.clone()).unwrap_or_default()
    }

    /// Returns whether the subscriber has not left.
    pub(crate) fn contains(&self, id: SubscriberId) -> bool {
        self.state.lock().members.contains_key(&id)
    }

    /// Calls the closure when the subscriber leaves. Returns the closure if it has left.
    pub(crate) fn on_leave(&self, id: SubscriberId, closure: OnLeave) -> Result<(), OnLeave> {
        match self.state.lock().members.get_mut(&id) {
            Some(member) => {
                member.on_leave.push(closure);
                Ok(())
            }
            None => Err(closure),
        }
    }

    /// Adds the subscriber to these channels, which must be distinct. Returns how many of them are new to it; 0 if it
    /// has left.
    pub(crate) fn join_channels(&self, id: SubscriberId, channels: &[&str]) -> Result<usize, OpenError> {
        let mut state = self.state.lock();
        let Some(member) = state.members.get(&id) else { return Ok(0) };
        let current: HashSet<&str> = member.channels.iter().map(|channel| &**channel).collect();
        let new: Vec<Arc<str>> =
            channels.iter().filter(|channel| !current.contains(**channel)).map(|&channel| channel.into()).collect();
        let all = member.channels.len() + new.len();
        if all > self.limits.channels {
            return Err(OpenError::TooManyChannels { given: all, limit: self.limits.channels });
        }
        self.check_names(&new)?;
        state.check_channel_limits(&new, None, &self.limits)?;
        state.join(id, &new);
        Ok(new.len())
    }

    /// Removes the subscriber from these channels. Returns how many of them it was in.
    pub(crate) fn leave(&self, id: SubscriberId, channels: &[&str]) -> usize {
        let mut deferred = Deferred::default();
        let channels: HashSet<&str> = channels.iter().copied().collect();
        let left = self.leave_channels(&mut self.state.lock(), &channels, id, &mut deferred);
        deferred.finish();
        left
    }

    fn leave_channels(
        &self,
        state: &mut State,
        channels: &HashSet<&str>,
        id: SubscriberId,
        deferred: &mut Deferred,
    ) -> usize {
        // It may have left while the application's filter ran.
        let Some(member) = state.members.get_mut(&id) else { return 0 };
        let stays = |channel: &Arc<str>| !channels.contains(&**channel);
        if member.channels.iter().all(stays) {
            // So a subscriber that never was in a channel stays.
            return 0;
        }
        if !member.channels.iter().any(stays) {
            let member = state.remove(id).expect("BUG: a subscriber left the registry while the lock was held");
            let count = member.channels.len();
            self.close_member(member, EndCause::Unsubscribed, deferred);
            return count;
        }
        let left: Vec<Arc<str>> = member.channels.extract_if(.., |channel| !stays(channel)).collect();
        // A publisher to those channels no longer waits for it.
        member.wake_publishers();
        state.leave(id, &left);
        left.len()
    }

    /// Ends a subscriber that was just removed, after its queued events.
    pub(super) fn close_member(&self, mut member: Membership, cause: EndCause, deferred: &mut Deferred) {
        self.end_member(&mut member, cause, deferred);
        deferred.wake.extend(member.subscriber.close(cause));
        deferred.left.push(member);
    }

    /// Ends a subscriber that was just removed, at once.
    pub(super) fn abort_member(
        &self,
        mut member: Membership,
        cause: EndCause,
        farewell: Option<Frame>,
        deferred: &mut Deferred,
    ) {
        self.end_member(&mut member, cause, deferred);
        let (mut payloads, wake) = member.subscriber.abort(cause, farewell);
        deferred.payloads.append(&mut payloads);
        deferred.wake.extend(wake);
        deferred.aborted.push(Arc::clone(&member.subscriber));
        deferred.left.push(member);
    }

    /// Counts the end of a subscriber that was just removed, under the same lock, so that each end counts once.
    fn end_member(&self, member: &mut Membership, cause: EndCause, deferred: &mut Deferred) {
        deferred.hooks.clone_from(&self.hooks);
        deferred.warnings = Some(Arc::clone(&self.warnings));
        member.guard = self.hooks.as_ref().and_then(|hooks| hooks.guard());
        self.counters.count_ended(cause);
        // A publisher no longer waits for a subscriber that has left.
        member.wake_publishers();
    }

    pub(super) fn check_names(&self, channels: &[Arc<str>]) -> Result<(), OpenError> {
        match channels.iter().find(|name| name.len() > self.limits.channel_name_len) {
            Some(name) => {
                Err(OpenError::ChannelNameTooLong { length: name.len(), limit: self.limits.channel_name_len })
            }
            None => Ok(()),
        }
    }
}

impl Membership {
    /// Returns why it has left.
    pub(super) fn end_cause(&self) -> EndCause {
        self.subscriber.end_cause().expect("BUG: a subscriber left without a cause")
    }

    /// Returns what the log says of it.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { quota_key: self.subscriber.quota_key().map(|key| &**key), channels: &self.channels }
    }

    /// Wakes all publishers that wait for this subscriber.
    pub(super) fn wake_publishers(&self) {
        for publisher in self.waiting_publishers.values() {
            // A full channel has a token already.
            let _ = publisher.try_send(());
        }
    }

    /// Wakes the first publisher that waits for this subscriber, if there is one.
    pub(super) fn wake_first_publisher(&self) {
        if let Some(first) = self.waiting_publishers.values().next() {
            let _ = first.try_send(());
        }
    }
}

impl State {
    /// Checks that one more subscription crosses no limit. Returns the subscriber that it replaces.
    ///
    /// # Errors
    ///
    /// Returns the limit that it would cross.
    pub(super) fn check_limits(
        &self,
        channels: &[Arc<str>],
        quota_key: Option<&Arc<str>>,
        limits: &Limits,
    ) -> Result<Option<SubscriberId>, OpenError> {
        if self.shuts_down {
            return Err(OpenError::ShuttingDown);
        }
        if self.following.as_ref().is_some_and(|following| following.is_starting) {
            return Err(OpenError::Starting);
        }
        if self.alive.len() >= limits.subscribers {
            return Err(OpenError::TooManySubscribers { limit: limits.subscribers });
        }
        let replaced = quota_key.map_or(Ok(None), |key| self.quota.check(key, limits))?;
        self.check_channel_limits(channels, replaced, limits)?;
        Ok(replaced)
    }

    /// Checks that these channels have room for one more subscriber, which may replace another one.
    fn check_channel_limits(
        &self,
        channels: &[Arc<str>],
        replaced: Option<SubscriberId>,
        limits: &Limits,
    ) -> Result<(), OpenError> {
        let is_full = |channel: &&Arc<str>| {
            self.channels.get(&***channel).is_some_and(|members| {
                let leaves = replaced.is_some_and(|replaced| members.contains_key(&replaced));
                members.len() - usize::from(leaves) >= limits.per_channel
            })
        };
        match channels.iter().find(is_full) {
            Some(channel) => {
                Err(OpenError::TooManyInChannel { channel: channel.to_string(), limit: limits.per_channel })
            }
            None => Ok(()),
        }
    }

    pub(super) fn add(&mut self, subscriber: &Arc<Subscriber>, channels: &[Arc<str>]) {
        let id = subscriber.id();
        if let Some(key) = subscriber.quota_key() {
            self.quota.add(key, id);
        }
        self.alive.insert(id, Arc::downgrade(subscriber));
        self.blocking += usize::from(subscriber.block_timeout().is_some());
        let member = Membership {
            subscriber: Arc::clone(subscriber),
            channels: Vec::new(),
            waiting_publishers: BTreeMap::new(),
            on_leave: Vec::new(),
            guard: None,
        };
        self.members.insert(id, member);
        self.join(id, channels);
    }

    fn join(&mut self, id: SubscriberId, channels: &[Arc<str>]) {
        let member = self.members.get_mut(&id).expect("BUG: joining subscriber is not registered");
        for channel in channels {
            let members = self.channels.entry(Arc::clone(channel)).or_default();
            members.insert(id, Arc::clone(&member.subscriber));
        }
        member.channels.extend_from_slice(channels);
        if let (Some(replay), Some(log)) = (self.replays.get_mut(&id), &self.log) {
            replay.join(channels, log.sequence());
        }
    }

    fn leave(&mut self, id: SubscriberId, channels: &[Arc<str>]) {
        for channel in channels {
            self.leave_channel(channel, id);
        }
        if let (Some(replay), Some(log)) = (self.replays.get_mut(&id), &self.log) {
            replay.leave(channels, log.sequence());
        }
    }

    /// Removes the subscriber from its channels. A replay still delivers what was published before.
    pub(super) fn remove(&mut self, id: SubscriberId) -> Option<Membership> {
        let member = self.members.remove(&id)?;
        self.blocking -= usize::from(member.subscriber.block_timeout().is_some());
        if let Some(key) = member.subscriber.quota_key() {
            self.quota.leave(key, id);
        }
        for channel in &member.channels {
            self.leave_channel(channel, id);
        }
        if let (Some(replay), Some(log)) = (self.replays.get_mut(&id), &self.log) {
            replay.end_at(log.sequence());
        }
        Some(member)
    }

    /// The membership holds the record too, so this never drops the last reference.
    fn leave_channel(&mut self, channel: &str, id: SubscriberId) {
        let Some(members) = self.channels.get_mut(channel) else { return };
        members.remove(&id);
        if members.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Ends all replays here. They do not deliver what is published later.
    pub(super) fn end_replays(&mut self) {
        let Some(log) = &self.log else { return };
        for replay in self.replays.values_mut() {
            replay.end_at(log.sequence());
        }
    }
}
