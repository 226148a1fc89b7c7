-- Until then a receiver may be at what a dead owner of the lane sent.
ALTER TABLE lane ADD COLUMN held_until bigint NOT NULL DEFAULT 0;
