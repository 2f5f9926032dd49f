"""Operations of engines that operators want: kept here, done by nodes."""
